"""The round loop: schedule -> engine -> ring and metrics, over a fake engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pingmon_agent.pairs import Pairs
from pingmon_agent.plan import Engine, Plan
from pingmon_agent.policy import Judge, Policy
from pingmon_agent.resolve import Resolver
from pingmon_agent.ring import Limits, Ring
from pingmon_agent.rounds import Rounds
from pingmon_agent.schedule import Schedule, Tick
from pingmon_agent.wire.contract import Outcome, Target, TargetSet

from .fake_engine import FakeEngine


def a_set(*addresses: str, revision: int = 1, interval_s: float = 0.1) -> TargetSet:
    """A target set with these addresses."""
    targets = tuple(Target(id=n, name=f"t{n}", address=a) for n, a in enumerate(addresses))
    return TargetSet(agent_id="a", revision=revision, issued_at=0, interval_s=interval_s, targets=targets)


class Bench:
    """A round loop with all its neighbours, in a thread."""

    def __init__(self) -> None:
        self.ring, self.resolver = Ring(time.monotonic), Resolver(lambda _: ["192.0.2.9"], ttl_of=lambda _: None)
        self.schedule, self.pairs = Schedule("probe-1", time.monotonic), Pairs("probe-1")
        self.ticks: list[Tick] = []
        self.stop = threading.Event()
        self.rounds = Rounds(
            schedule=self.schedule,
            resolver=self.resolver,
            ring=self.ring,
            pairs=self.pairs,
            on_round=self.ticks.append,
            timeout_s=2.0,
            window_s=1.0,
            judge=Judge(Policy(min_interval_s=0.1)),
        )
        self.resolver.start()
        self.thread: threading.Thread | None = None

    def run(self, engine: Engine) -> None:
        """Start the loop."""
        self.thread = threading.Thread(target=self.rounds.run, args=(engine, self.stop))
        self.thread.start()

    def wait_for_rounds(self, count: int) -> None:
        """Wait until `count` rounds are in the ring."""
        deadline = time.monotonic() + 5
        while self.ring.last_seq < count:
            assert time.monotonic() < deadline, f"only {self.ring.last_seq} rounds"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self.stop.set()
        if self.thread is not None:
            self.thread.join(3)
        self.resolver.stop()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench that is closed."""
    made = Bench()
    yield made
    made.close()


def test_a_round_carries_its_set_and_goes_to_ring_and_metrics(bench: Bench) -> None:
    """Each round names the revision it was measured with, also across a change."""
    engine = FakeEngine()
    bench.run(engine)
    bench.schedule.offer(a_set("192.0.2.1", revision=4))
    bench.wait_for_rounds(2)
    bench.schedule.offer(a_set("192.0.2.1", "name.example", revision=5))
    deadline = time.monotonic() + 3
    while bench.ticks[-1].targets.revision != 5 and time.monotonic() < deadline:
        time.sleep(0.01)

    rounds = bench.ring.after(0, Limits())
    assert {(r.revision, len(r.samples)) for r in rounds} == {(4, 1), (5, 2)}
    assert engine.plans[-1].addresses == ["192.0.2.1", "192.0.2.9"]
    assert 'pingmon_ping_requests_total{source="probe-1",target="t1"} ' in bench.pairs.render()


def test_measuring_starts_as_soon_as_targets_arrive(bench: Bench) -> None:
    """Well below a second from targets to the first round."""
    bench.run(FakeEngine())
    time.sleep(0.1)
    begun = time.monotonic()
    bench.schedule.offer(a_set("192.0.2.1", interval_s=60))
    bench.wait_for_rounds(1)

    assert time.monotonic() - begun < 0.5


def test_the_first_round_waits_a_moment_for_its_names(bench: Bench) -> None:
    """A name server that takes 0.2 s does not cost a round of unresolved targets."""
    bench.resolver._lookup = lambda name: [time.sleep(0.2) or "192.0.2.9"]
    engine = FakeEngine()
    bench.run(engine)
    bench.schedule.offer(a_set("name.example", interval_s=60))
    bench.wait_for_rounds(1)

    assert engine.plans[0].addresses == ["192.0.2.9"]


def test_a_bug_in_a_round_is_counted_and_survived(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The loop head logs it and goes on with the next round."""
    calls = []

    def answer(plan: Plan) -> list[int]:
        calls.append(plan)
        if len(calls) == 1:
            raise RuntimeError("boom")
        return [5]

    bench.run(FakeEngine(answer))
    bench.schedule.offer(a_set("192.0.2.1"))
    bench.wait_for_rounds(1)

    assert bench.rounds.counts.faults == 1
    assert "a round met a bug" in caplog.text


def test_window_and_timeout_fit_into_the_interval(bench: Bench) -> None:
    """No overlap: with a short interval both shrink, with a long one they are as configured."""
    short = bench.rounds.plan(a_set("192.0.2.1", interval_s=1.0))
    normal = bench.rounds.plan(a_set("192.0.2.1", interval_s=5.0))

    assert short.window_s + short.timeout_s <= 0.9 + 1e-9
    assert (normal.window_s, normal.timeout_s) == (1.0, 2.0)


def test_outcomes_are_counted(bench: Bench) -> None:
    """What is not a reply is counted by its name."""
    outcomes = [int(outcome) for outcome in Outcome]
    bench.run(FakeEngine(lambda plan: outcomes))
    bench.schedule.offer(a_set(*["192.0.2.1"] * len(outcomes), interval_s=60))
    bench.wait_for_rounds(1)
    time.sleep(0.05)

    assert {o: bench.rounds.outcomes[o] for o in Outcome} == dict.fromkeys(Outcome, 1)


def test_a_set_without_targets_takes_them_off_the_metrics(bench: Bench) -> None:
    """Nobody may see a target as up that nothing pings any more."""
    bench.schedule.offer(a_set("192.0.2.1"))
    bench.run(FakeEngine())
    bench.wait_for_rounds(1)
    assert 'target="t0"' in bench.pairs.render()

    bench.schedule.offer(a_set(revision=2))
    deadline = time.monotonic() + 5
    while 'target="t0"' in bench.pairs.render():
        assert time.monotonic() < deadline, "the target is still there"
        time.sleep(0.01)


def test_the_same_addresses_are_planned_as_the_same_list(bench: Bench) -> None:
    """The engine lays packets out once per list; another list comes only when a name has got another address."""
    targets = a_set("192.0.2.1", "name.example")
    bench.resolver.watch(["name.example"])
    assert bench.resolver.settle(2)
    first = bench.rounds.plan(targets).addresses
    assert bench.rounds.plan(targets).addresses is first

    bench.resolver._lookup = lambda name: ["192.0.2.77"]
    bench.resolver._refresh("name.example")
    assert bench.rounds.plan(targets).addresses == ["192.0.2.1", "192.0.2.77"]
