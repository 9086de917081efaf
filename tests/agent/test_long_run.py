"""A day in half a minute: the round loop over real sockets, with the clock of the schedule running ahead."""

from __future__ import annotations

import gc
import os
import statistics
import threading
from pathlib import Path

import pytest

from pingmon_agent.engine import EchoEngine
from pingmon_agent.pairs import Pairs
from pingmon_agent.policy import Judge, Policy
from pingmon_agent.resolve import Resolver
from pingmon_agent.ring import Limits, Ring
from pingmon_agent.rounds import Rounds
from pingmon_agent.schedule import Schedule
from pingmon_agent.wire.contract import Target, TargetSet

pytestmark = [pytest.mark.root, pytest.mark.e2e]
HOURS, INTERVAL_S, TARGETS = 24, 5.0, 12
ROUNDS = int(HOURS * 3600 / INTERVAL_S)


class Clock:
    """Stands still between rounds and is set forward to the next."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def resident_kib() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def a_set() -> TargetSet:
    """Eleven loopback addresses and one of IPv6."""
    addresses = [*(f"127.0.3.{n}" for n in range(1, TARGETS)), "::1"]
    targets = tuple(Target(id=n, name=f"t{n}", address=address) for n, address in enumerate(addresses))
    return TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=INTERVAL_S, targets=targets)


@pytest.mark.timeout(180)
def test_a_day_without_drift_leak_or_wrong_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """17,280 rounds and 207,360 sequence numbers: each round on its tick, every reply right, no memory or file lost."""
    clock, stop = Clock(), threading.Event()
    monkeypatch.setattr("pingmon_agent.engine._boot", clock)
    schedule, ring, pairs = Schedule("probe-1", clock), Ring(clock), Pairs("probe-1")
    rounds = Rounds(
        schedule=schedule,
        resolver=Resolver(),
        ring=ring,
        pairs=pairs,
        on_round=lambda tick: None,
        timeout_s=2.0,
        window_s=0.0,
        judge=Judge(Policy(allow_loopback=True)),
    )
    engine = EchoEngine(stop)
    for lane in [*engine._lanes.values()] * 20:  # so that the allocator has found its form before we weigh
        lane.renew()
    schedule.offer(a_set())
    memory, files, first_tick, slowest = [], set(), 0.0, 0
    try:
        for number in range(ROUNDS):
            wait = schedule.wait_s()
            assert wait is not None
            clock.now += wait
            tick = schedule.begin()
            assert tick is not None
            assert tick.skipped == 0
            rounds._probe(engine, tick, stop)
            if number == 1:
                first_tick = clock.now
            if number % (ROUNDS // HOURS) == ROUNDS // HOURS - 1:
                ring.ack(ring.last_seq)
                newest = ring.after(ring.last_seq - 1, Limits())[-1].samples
                slowest = max(slowest, *newest)
                gc.collect()
                memory.append(resident_kib())
                files.add(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - a count of links that vanish
    finally:
        engine.close()

    tally = engine.tally
    assert clock.now == pytest.approx(first_tick + (ROUNDS - 2) * INTERVAL_S, abs=1e-3)
    assert (ring.last_seq, rounds.counts.disturbed, rounds.counts.faults) == (ROUNDS, 0, 0)
    assert not rounds.outcomes
    assert tally.sent == ROUNDS * TARGETS
    wrong = (tally.duplicates, tally.late, tally.foreign, tally.wrong_source, tally.corrupt, tally.overflow)
    assert wrong == (0,) * 6
    assert tally.identities == 5  # every four hours
    assert tally.unstamped < ROUNDS * TARGETS / 1000
    assert 0 <= slowest < 100_000
    assert len(files) == 1
    assert statistics.median(memory[-6:]) - statistics.median(memory[2:8]) <= 128, memory
