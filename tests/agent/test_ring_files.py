"""The ring on files gives back after a kill, an upgrade or a reboot exactly what it must."""

from __future__ import annotations

import os
import tempfile
from array import array
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pingmon_agent import segments
from pingmon_agent.journal import BusyError

from .shelf import ALL, Host, journal_of, killed_after, values

KEEP_S = 1800.0


class Model(RuleBasedStateMachine):
    """One agent that measures, hears acknowledgements and is killed, beside a list of what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.host = Host(Path(self.folder.name) / "ring", max_bytes=1 << 20)
        self.ring = self.host.agent()
        self.epoch = self.ring.epoch
        self.kept: list[tuple[int, float, int]] = []  # seq, when, width
        self.acked = self.count = 0

    @rule(width=st.integers(0, 40), wait=st.sampled_from([0.0, 0.5, 1.0, 59.0, 60.0, 700.0]))
    def measure(self, width: int, wait: float) -> None:
        made = self.ring.append(started_ms=5, revision=1, samples=array("i", [self.count] * width), disturbed=False)
        assert made is not None
        self.count += 1
        assert made.seq == self.count
        self.kept.append((self.count, self.host.now, width))
        self.host.now += wait

    @rule(back=st.integers(0, 5))
    def ack(self, back: int) -> None:
        self.acked = max(0, self.count - back)
        self.ring.ack(self.acked)

    @rule(step_h=st.integers(-50, 50))
    def set_clock(self, step_h: int) -> None:
        """Somebody sets the wall clock; nothing may come of it."""
        self.host.wall_ms += step_h * 3_600_000

    @rule()
    @precondition(lambda self: self.count > 0)
    def kill(self) -> None:
        self.host.kill(self.ring)
        self.ring = self.host.agent()

    @invariant()
    def holds_what_it_must(self) -> None:
        self.kept = [k for k in self.kept if k[1] >= self.host.now - KEEP_S]
        rounds = self.ring.after(0, ALL)
        assert [(r.seq, len(r.samples), r.epoch) for r in rounds] == [(s, w, self.epoch) for s, _, w in self.kept]
        assert all(set(r.samples) <= {r.seq - 1} for r in rounds)
        assert self.ring.last_seq == self.count
        assert self.ring.waiting() == sum(width for seq, _, width in self.kept if seq > self.acked)
        assert len(self.host.segments()) <= 31 or self.host.rings[1:], "a minute is a file"

    def teardown(self) -> None:
        self.host.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_an_epoch_goes_on_after_a_kill(host: Host) -> None:
    """Every number that was given is known, so the next one follows."""
    expected = killed_after(host, 5)

    ring = host.agent()

    assert values(ring) == expected
    assert host.measure(ring, 5).seq == 6


def test_29_minutes_are_kept_and_of_31_the_oldest_one_goes(host: Host) -> None:
    """By the clock of the boot, to the round, across a kill in the middle; as many files as there are minutes."""
    ring = host.agent()
    for value in range(29 * 60):
        host.measure(ring, value)
        host.wait(1)
    assert values(ring) == list(range(29 * 60))
    host.kill(ring)
    ring = host.agent()
    for value in range(29 * 60, 31 * 60):
        host.measure(ring, value)
        host.wait(1)

    kept = values(ring)

    assert kept == list(range(60, 31 * 60))
    assert ring.dropped == 60 * 3
    assert len(host.segments()) <= 32  # 31, and one more as the kill cut a minute in two
    host.wait(4000)
    assert (values(ring), ring.waiting(), len(host.segments())) == ([], 0, 1)


def test_what_expired_before_a_kill_is_not_counted_again(host: Host) -> None:
    """Only what ran out while nobody was there is."""
    killed_after(host, 100, step_s=20)  # the 100th round came 30 minutes after the 10th; the 9th is in its file too
    assert segments.read(host.segments()[0].read_bytes()).blocks[1].samples[0] < 9
    host.wait(300)

    ring = host.agent()

    assert ring.dropped == 16 * 3
    assert values(ring) == list(range(25, 100))


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_step_neither_expires_nor_keeps(host: Host, hours: int) -> None:
    """The wall clock is set while the agent runs, and again while it is away."""
    ring = host.agent()
    host.measure(ring, 1)
    host.wall_ms += hours * 3_600_000
    host.measure(ring, 2)
    host.kill(ring)
    host.wall_ms += hours * 3_600_000
    host.now += KEEP_S - 1

    ring = host.agent()

    assert values(ring) == [1, 2]
    host.now += 2
    assert values(ring) == []


def test_after_a_reboot_the_wall_clock_tells_the_age(host: Host) -> None:
    """The clock of the boot has begun anew: what was measured more than 30 minutes ago goes, the rest is offered."""
    killed_after(host, 40, step_s=60)
    host.reboot(away_s=300)

    ring = host.agent()

    assert values(ring) == list(range(15, 40))
    host.wait(600)
    assert values(ring) == list(range(25, 40))


def test_a_wall_clock_that_is_behind_after_a_reboot_keeps(host: Host) -> None:
    """A host without a clock of its own must not throw away what it holds."""
    killed_after(host, 3)
    host.reboot(away_s=-86_400)

    assert values(host.agent()) == [0, 1, 2]


def test_a_reboot_begins_a_new_epoch_and_offers_the_old_one_first(host: Host) -> None:
    """Nobody knows whether the last rounds before a power cut were sent; so their epoch is closed, not renumbered."""
    killed_after(host, 3)
    old = host.rings[0].epoch
    host.reboot()
    ring = host.agent()
    assert (ring.epoch, ring.last_seq) == (old, 3)

    fresh = host.measure(ring, 7)
    assert (ring.epoch, values(ring), fresh.seq) == (old, [0, 1, 2], 1)
    ring.ack(3, old)

    assert (ring.epoch, ring.last_seq, values(ring)) == (fresh.epoch, 1, [7])
    assert ring.waiting() == 3
    ring.offer_again()
    assert ring.epoch == old


def test_a_closed_epoch_of_which_the_server_knows_more_is_done(host: Host) -> None:
    """What the power cut took was delivered: nothing is numbered anew, nothing comes twice."""
    killed_after(host, 3)
    host.reboot()
    ring = host.agent()
    host.measure(ring, 7)

    ring.new_epoch()

    assert values(ring) == [7]


def test_acknowledged_rounds_can_be_had_again_after_a_kill(host: Host) -> None:
    """The position is known as well as the rounds below it."""
    ring = host.agent()
    for value in range(5):
        host.measure(ring, value)
    ring.ack(4)
    host.kill(ring)

    ring = host.agent()

    assert ring.waiting() == 3
    assert values(ring, 2) == [2, 3, 4]


def test_rounds_of_another_agent_go_from_the_files_too(host: Host) -> None:
    """Approved under another id before a kill or after it: either way nothing of the former self is left."""
    for kill_first in (False, True):
        ring = host.agent()
        ring.belong_to("one")
        host.measure(ring, 1)
        host.measure(ring, 2)
        if kill_first:
            host.kill(ring)
            ring = host.agent()
        ring.belong_to("two")
        host.kill(ring)

        ring = host.agent()
        assert (values(ring), ring.waiting()) == ([], 0)
        host.kill(ring)


def test_a_file_of_another_agent_that_could_not_be_removed_is_passed_over(host: Host) -> None:
    """Its rounds stand under the same epoch, but in the name of another."""
    ring = host.agent()
    ring.belong_to("one")
    host.measure(ring, 1)
    stuck = host.segments()[0]
    data = stuck.read_bytes()
    ring.belong_to("two")
    host.measure(ring, 2)
    host.kill(ring)
    stuck.write_bytes(data)

    assert values(host.agent()) == [2]


def test_a_new_epoch_takes_the_place_of_the_old_one_on_file(host: Host) -> None:
    """A host that was set back: what is not acknowledged stands there under its new numbers, and once."""
    ring = host.agent()
    for value in range(5):
        host.measure(ring, value)
    ring.ack(3)
    ring.new_epoch()
    epoch = ring.epoch
    host.measure(ring, 5)
    host.kill(ring)

    ring = host.agent()

    assert (ring.epoch, [(r.seq, r.samples[0]) for r in ring.after(0, ALL)]) == (epoch, [(1, 3), (2, 4), (3, 5)])


def test_a_second_agent_is_refused(host: Host) -> None:
    """With the process that is there, and what to do; once that one is gone the directory is free."""
    ring = host.agent()
    with pytest.raises(BusyError) as refused:
        host.agent()
    ring.close()

    assert str(refused.value) == (
        f"another agent (process {os.getpid()}) keeps its rounds in {host.directory}; stop it, or give this one a "
        'directory of its own by agent.buffer_dir, or set agent.buffer = "memory"'
    )
    assert values(host.agent()) == []


def test_files_never_exceed_the_maximum(host: Host) -> None:
    """The oldest go, in memory as on file, and what nobody had acknowledged counts as dropped."""
    host.max_bytes = 1 << 20
    ring = host.agent()
    for value in range(300):
        host.measure(ring, value, width=2000)
        host.wait(0.5)
        files = sum(path.stat().st_size for path in host.segments())
        assert files == journal_of(ring).size <= host.max_bytes
    kept = values(ring)
    host.kill(ring)

    assert 110 < len(kept) < 131
    assert kept == list(range(300 - len(kept), 300))
    assert ring.dropped == (300 - len(kept)) * 2000
    assert values(host.agent()) == kept


def test_a_ring_that_is_closed_writes_nothing_more(host: Host) -> None:
    """Another agent may have the directory by then."""
    ring = host.agent()
    host.measure(ring, 0)
    ring.close()
    before = [path.stat().st_size for path in host.segments()]
    host.wait(100)

    host.measure(ring, 1)
    ring.ack(1)

    assert [path.stat().st_size for path in host.segments()] == before
    assert values(host.agent()) == [0]
