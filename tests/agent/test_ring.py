"""The ring keeps what the server has not got, in order and without holes, and lets go of what is too old."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from pingmon_agent.ring import Limits, Ring
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import MAX_MESSAGE_BYTES, Report


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ring_of(count: int, *, width: int = 1, keep_s: float = 1800.0) -> tuple[Ring, Clock]:
    """A ring with `count` rounds, one a second."""
    clock = Clock()
    ring = Ring(clock, keep_s)
    for n in range(count):
        ring.append(started_ms=n, revision=1, samples=array("i", [n]) * width, disturbed=False)
        clock.now += 1
    return ring, clock


def test_rounds_are_numbered_from_one_and_come_back_as_they_went_in() -> None:
    """append, then after."""
    ring, _ = ring_of(3)

    rounds = ring.after(1, Limits())

    assert [(r.seq, r.started_ms, r.samples.tolist()) for r in rounds] == [(2, 1, [1]), (3, 2, [2])]
    assert {r.epoch for r in rounds} == {ring.epoch}


def test_acknowledged_rounds_can_be_had_again() -> None:
    """A server that was restored from a backup asks for what it once had."""
    ring, _ = ring_of(5)
    ring.ack(5)

    assert ring.waiting() == 0
    assert [r.seq for r in ring.after(2, Limits())] == [3, 4, 5]


def test_an_acknowledgement_of_the_future_does_not_cover_it() -> None:
    """What is measured later is waiting all the same."""
    ring, _ = ring_of(2)
    ring.ack(99)
    ring.append(started_ms=3, revision=1, samples=array("i", [1]), disturbed=False)

    assert ring.waiting() == 1


def test_what_is_too_old_goes_and_is_counted_only_if_it_never_arrived() -> None:
    """Exactly the old rounds go."""
    ring, clock = ring_of(10, keep_s=100, width=2)
    ring.ack(4)
    clock.now = 106.5

    assert ring.after(0, Limits())[0].seq == 8
    assert ring.dropped == 3 * 2


def test_the_ring_is_bounded_by_samples_too() -> None:
    """A fast schedule with many targets cannot eat the memory of the host."""
    clock = Clock()
    ring = Ring(clock, max_samples=100)
    for _ in range(50):
        ring.append(started_ms=0, revision=1, samples=array("i", [1]) * 10, disturbed=False)

    assert [r.seq for r in ring.after(0, Limits())] == list(range(41, 51))


def test_a_new_epoch_renumbers_only_what_was_not_acknowledged() -> None:
    """Numbers that the server already holds are never used twice."""
    ring, _ = ring_of(5)
    before = ring.epoch
    ring.ack(3)

    ring.new_epoch()

    rounds = ring.after(0, Limits())
    assert ring.epoch != before
    assert [(r.seq, r.started_ms, r.epoch) for r in rounds] == [(1, 3, ring.epoch), (2, 4, ring.epoch)]
    ring.append(started_ms=9, revision=1, samples=array("i"), disturbed=False)
    assert ring.last_seq == 3


def test_rounds_of_another_agent_go() -> None:
    """Whoever was deleted and approved anew is another agent: its sets number other targets, so old rounds say nothing.

    Numbers go on, so that the server hears of a gap and not of rounds it seems to have.
    """
    ring, _ = ring_of(3)
    ring.belong_to("one")
    ring.ack(1)
    assert [r.seq for r in ring.after(0, Limits())] == [1, 2, 3]

    ring.belong_to("two")
    late = ring.append(started_ms=9, revision=1, samples=array("i", [1]), disturbed=False, agent_id="one")
    fresh = ring.append(started_ms=9, revision=1, samples=array("i", [1]), disturbed=False, agent_id="two")

    assert late is None
    assert fresh is not None
    assert [r.seq for r in ring.after(0, Limits())] == [4]
    assert (ring.waiting(), ring.dropped) == (1, 2)


def test_the_first_round_always_comes_even_if_it_is_too_large() -> None:
    """Else a large round would block all that follow."""
    ring, _ = ring_of(3, width=100)

    assert [r.seq for r in ring.after(0, Limits(samples=10))] == [1]


@given(
    count=st.integers(0, 80),
    width=st.integers(0, 300),
    after=st.integers(0, 90),
    limits=st.builds(Limits, rounds=st.integers(1, 64), samples=st.integers(1, 8000), bytes=st.integers(300, 65536)),
)
def test_a_report_keeps_all_three_limits_and_has_no_hole(count: int, width: int, after: int, limits: Limits) -> None:
    """Whatever the limits: contiguous from `after`, as long as allowed, and the encoded message fits."""
    ring, _ = ring_of(count, width=width)

    rounds = ring.after(after, limits)

    assert [r.seq for r in rounds] == list(range(after + 1, after + 1 + len(rounds)))
    assert bool(rounds) == (after < count)
    if len(rounds) > 1:
        assert len(rounds) <= limits.rounds
        assert sum(len(r.samples) for r in rounds) <= limits.samples
        payload = codec.encode_report(Report(epoch=ring.epoch, rounds=tuple(rounds)))
        assert len(_compact(payload)) <= limits.bytes


def _compact(payload: object) -> str:
    import json

    return json.dumps(["monitoring_data", payload], separators=(",", ":"))


def test_the_largest_set_fits_one_message() -> None:
    """8,000 targets with RTTs of a second each are one report below the contract's limit."""
    clock = Clock()
    ring = Ring(clock)
    ring.append(started_ms=1_795_613_640_115, revision=2**31, samples=array("i", [1_999_999]) * 8000, disturbed=True)

    payload = codec.encode_report(Report(epoch=ring.epoch, rounds=tuple(ring.after(0, Limits()))))

    assert len(_compact(payload)) + 64 < MAX_MESSAGE_BYTES
