"""When rounds start, on a clock that the test turns."""

from __future__ import annotations

import itertools

from pingmon_agent.schedule import Schedule
from pingmon_agent.wire.contract import Target, TargetSet


class Clock:
    """A clock that the test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_set(revision: int = 1, count: int = 1, interval_s: float = 5.0) -> TargetSet:
    """A target set."""
    targets = tuple(Target(id=n, name=f"t{n}", address="192.0.2.1") for n in range(count))
    return TargetSet(agent_id="a", revision=revision, issued_at=0, interval_s=interval_s, targets=targets)


def test_the_first_round_starts_at_once_and_the_next_ones_at_ticks() -> None:
    """No waiting after targets arrive; then every interval, at a phase of the agent's own."""
    clock = Clock()
    schedule = Schedule("probe-1", clock)
    assert schedule.wait_s() is None
    schedule.offer(a_set())
    assert schedule.wait_s() == 0.0
    tick = schedule.begin()
    first_wait = schedule.wait_s()
    assert tick is not None
    assert first_wait is not None

    starts = []
    for _ in range(3):
        clock.now += schedule.wait_s() or 0
        assert schedule.begin() is not None
        starts.append(clock.now)

    assert (tick.lag_s, tick.skipped, tick.disturbed, tick.changed) == (0.0, 0, False, True)
    assert 2.5 <= first_wait < 7.5
    assert [round(b - a, 6) for a, b in itertools.pairwise(starts)] == [5.0, 5.0]


def test_a_fleet_does_not_fire_in_step() -> None:
    """100 agents that booted together have 100 phases, spread over the interval."""
    phases = set()
    for number in range(100):
        clock = Clock()
        schedule = Schedule(f"probe-{number}", clock)
        schedule.offer(a_set())
        schedule.begin()
        phases.add(round((clock.now + (schedule.wait_s() or 0)) % 5, 3))

    assert len(phases) > 95
    assert min(phases) < 0.5
    assert max(phases) > 4.5


def test_a_new_set_takes_effect_between_rounds() -> None:
    """The running tick keeps its set; the next has the new one and says so."""
    clock = Clock()
    schedule = Schedule("probe-1", clock)
    schedule.offer(a_set(1))
    before = schedule.begin()
    schedule.offer(a_set(2, count=3))
    wait = schedule.wait_s() or 0
    clock.now += wait
    after = schedule.begin()
    schedule.offer(a_set(2, count=3))
    clock.now += schedule.wait_s() or 0
    same = schedule.begin()

    assert wait > 0
    assert before is not None
    assert after is not None
    assert same is not None
    assert (before.targets.revision, after.targets.revision) == (1, 2)
    assert (after.changed, same.changed) == (True, False)


def test_an_empty_set_stops_probing_until_there_are_targets() -> None:
    """No busy loop, no empty rounds."""
    clock = Clock()
    schedule = Schedule("probe-1", clock)
    schedule.offer(a_set(1, count=0))
    assert schedule.wait_s() is None
    schedule.offer(a_set(2))
    assert schedule.begin() is not None
    schedule.offer(a_set(3, count=0))
    clock.now += schedule.wait_s() or 0

    assert schedule.begin() is None
    assert schedule.wait_s() is None


def test_a_stall_skips_rounds_and_says_so() -> None:
    """Asleep for 12 s: two rounds never happened, the next one is marked, and then all is as before."""
    clock = Clock()
    schedule = Schedule("probe-1", clock)
    schedule.offer(a_set())
    schedule.begin()
    clock.now += (schedule.wait_s() or 0) + 12.0
    late = schedule.begin()
    clock.now += schedule.wait_s() or 0
    well = schedule.begin()

    assert late is not None
    assert well is not None
    assert (late.skipped, late.disturbed) == (2, True)
    assert (well.skipped, well.disturbed) == (0, False)


def test_a_busy_host_disturbs_before_it_skips() -> None:
    """A start more than a quarter of the interval late is no evidence against the network."""
    clock = Clock()
    schedule = Schedule("probe-1", clock)
    schedule.offer(a_set())
    schedule.begin()
    clock.now += (schedule.wait_s() or 0) + 1.5
    tick = schedule.begin()

    assert tick is not None
    assert (tick.skipped, tick.disturbed) == (0, True)


def test_rounds_keep_their_distance_after_a_late_one() -> None:
    """Never less than half an interval between two starts, wherever the ticks fall."""
    for number in range(50):
        clock = Clock()
        schedule = Schedule(f"probe-{number}", clock)
        schedule.offer(a_set())
        schedule.begin()

        assert 2.5 <= (schedule.wait_s() or 0) < 7.5
