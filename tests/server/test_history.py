"""History of a pair, a row, a column and the whole picture: from memory and from the store, the same answers."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon.config import RetentionSection
from pingmon.services.bundle import Services, remember
from pingmon.services.cells import CellState
from pingmon.services.downsample import FIELDS, Sample, points
from pingmon.services.errors import Invalid, NotFound, Unavailable
from pingmon.services.history import History
from pingmon.services.timespan import Span
from pingmon.services.views import AgentView
from pingmon.store.rounds import FLAG_DISTURBED, FLAG_LATE, StoredRound

from .conftest import Approve, FakeClock

MINUTE = 60_000


def numbers(samples: list[Sample], step_ms: int = MINUTE, steps: int = 1) -> list[dict[str, Any]]:
    return points(samples, Span(0, step_ms * steps, step_ms))


def test_a_point_says_what_became_of_every_probe() -> None:
    """Replies, losses and what was no evidence are counted apart; figures are values that were measured."""
    samples = [(i * 1000, 1000 * (i + 1), 0) for i in range(20)]
    samples += [(20_000, -1, 0), (21_000, -3, 0), (22_000, -6, 0)]  # lost: timeout, unreachable, TTL exceeded
    samples += [(23_000, -4, 0), (24_000, -5, 0), (25_000, -1, FLAG_DISTURBED)]  # our own fault
    samples += [(26_000, -2, 0)]  # not probed: nothing at all

    assert numbers(samples) == [
        {
            "timestamp": 0.0, "sent": 23, "lost": 3, "errors": 3, "loss": 0.1304, "loss_max": 0.1304,
            "min_ms": 1.0, "p50_ms": 10.0, "p95_ms": 19.0, "p99_ms": 20.0, "max_ms": 20.0,
        }
    ]  # fmt: skip


def test_a_minute_of_outage_is_not_averaged_away() -> None:
    """An hour in one point still says that there was a minute without any answer."""
    samples = [(at, -1 if 600_000 <= at < 660_000 else 1000, 0) for at in range(0, 3_600_000, 5000)]

    (hour,) = numbers(samples, 3_600_000)

    assert (hour["loss"], hour["loss_max"]) == (0.0167, 1.0)


def test_a_hole_is_a_point_without_values() -> None:
    """Nothing measured is not nothing lost, and not a line from before to after."""
    first, hole, last = numbers([(0, 7, 0), (2 * MINUTE, 8, 0)], steps=3)

    assert (hole["sent"], hole["lost"], hole["loss"], hole["p50_ms"]) == (0, 0, None, None)
    assert (first["p50_ms"], last["p50_ms"]) == (0.007, 0.008)
    assert tuple(hole) == FIELDS


@given(st.lists(st.tuples(st.integers(0, 599_999), st.integers(-7, 3_000_000), st.sampled_from([0, 1])), max_size=200))
def test_no_sample_is_lost_on_the_way(samples: list[Sample]) -> None:
    """Whatever the step: everything probed is in exactly one point, and the extremes survive."""
    replies = [value for _, value, _ in samples if value >= 0]
    for step in (MINUTE, 7 * MINUTE, 10 * MINUTE):
        made = numbers(samples, step, 600_000 // step + 1)
        assert sum(p["sent"] + p["errors"] for p in made) == sum(1 for _, value, _ in samples if value != -2)
        assert sum(p["sent"] - p["lost"] for p in made) == len(replies)
        shown = [p["max_ms"] for p in made if p["max_ms"] is not None]
        assert max(shown, default=None) == (max(replies) / 1000 if replies else None)


def at_instant(services: Services, at: str) -> dict[str, Any]:
    """The picture as programs get it, and the packed one, which must say the same."""
    told: dict[str, Any] = json.loads(services.past.picture_json(at))
    packed = services.past.picture_packed(at)
    start = 4 + int.from_bytes(packed[:4], "little")
    width = len(told["targets"])
    count = len(told["agents"]) * width
    samples = array("i", packed[start : start + 4 * count]).tolist()
    states = [[state.word for state in CellState][code] for code in packed[start + 4 * count :]]
    assert [samples[i : i + width] for i in range(0, count, width)] == told["samples"]
    assert [states[i : i + width] for i in range(0, count, width)] == told["state"]
    assert json.loads(packed[4:start]).items() <= told.items()
    return told


def measure(services: Services, agent: AgentView, clock: FakeClock, hours: int) -> None:
    """A round a minute for `hours` up to now, in the store and in memory; the targets change in the middle."""
    since = clock.now_ms - hours * 3_600_000
    for k in range(hours * 60):
        if k == hours * 30:
            services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11"), ("c", "192.0.2.12")], "test")
        ids = services.registry.snapshot.sets[agent.no]
        values = {t.id: 1000 * t.id + k if k % 10 else -1 for t in services.registry.targets()}
        stored = StoredRound(
            agent_no=agent.no, epoch="e", seq=k + 1, started_ms=since + k * 60_000, revision=ids.revision, flags=0,
            received_ms=since + k * 60_000, samples=array("i", [values[t] for t in ids.target_ids]),
        )  # fmt: skip
        services.rounds.write([stored], {(agent.no, "e"): k + 1}, clock.now_ms)
        services.recent.add(stored, ids.target_ids)
        services.grid.add(stored, ids.target_ids)


@pytest.fixture
def measured(services: Services, approve: Approve, clock: FakeClock) -> Services:
    """Four hours of one agent: gone, a, b, and for the last two a, b, c; memory knows all of it."""
    services.registry.put_targets([("gone", "192.0.2.9"), ("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    measure(services, approve(), clock, 4)
    return services


def test_memory_and_store_tell_the_same(measured: Services) -> None:
    """The last hour: first read from the store, then, once memory is complete, from there."""
    asked = [measured.history.span("-1h", None, step) for step in ("300", "raw")]
    from_store = [measured.history.series("probe-1", "a", span) for span in asked]
    row_from_store = measured.history.row("probe-1", asked[0])
    measured.recent.complete = True
    measured.rounds.close()
    (measured.config.data_dir / "samples.db").rename(measured.config.data_dir / "gone.db")

    assert [measured.history.series("probe-1", "a", span) for span in asked] == from_store
    assert measured.history.row("probe-1", asked[0]) == row_from_store
    assert len(from_store[1]["samples"]) == 60
    with pytest.raises(Unavailable, match="the sample store cannot be read now"):
        measured.history.series("probe-1", "a", measured.history.span("-2h", None, None))


def test_a_pair_is_followed_across_changes_of_the_target_list(measured: Services) -> None:
    """Target a moved a column to the left; its history does not show a seam."""
    answer = measured.history.series("probe-1", "a", measured.history.span("-4h", None, "1h"))
    added = measured.history.series("probe-1", "192.0.2.12", measured.history.span("-4h", None, "1h"))

    assert [(p["sent"], p["lost"]) for p in answer["points"]] == [(60, 6)] * 4
    assert [p["min_ms"] for p in answer["points"]] == [2.001, 2.061, 2.121, 2.181]
    assert [p["sent"] for p in added["points"]] == [0, 0, 60, 60]
    assert answer["step_s"] == 3600


def test_a_row_and_a_column(measured: Services) -> None:
    """All targets of an agent, all agents of a target; an agent is not asked about itself."""
    span = measured.history.span("-2h", None, "1h")
    row = measured.history.row("probe-1", span)
    column = measured.history.column("b", span)

    assert [series["target"] for series in row["series"]] == ["a", "b", "c"]
    assert [series["agent"] for series in column["series"]] == ["probe-1"]
    assert row["series"][1]["points"] == column["series"][0]["points"]
    assert measured.history.column("probe-1", span)["series"] == []


def test_too_much_at_once_is_refused(measured: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw rows, and more points or samples than a client can want, with the way out."""
    history = measured.history
    with pytest.raises(Invalid, match="give a step such as 60"):
        history.row("probe-1", history.span("-1h", None, "raw"))
    monkeypatch.setattr("pingmon.services.history.MAX_ROW_POINTS", 100)
    with pytest.raises(Invalid, match="3 series of 60 points are too many at once; take a larger step"):
        history.row("probe-1", history.span("-1h", None, "60"))
    monkeypatch.setattr("pingmon.services.history.MAX_RAW", 100)
    with pytest.raises(Invalid, match="240 samples are more than 100; ask for less time, or give a step"):
        history.series("probe-1", "a", history.span("-4h", None, "raw"))


def test_who_is_unknown_is_said(measured: Services) -> None:
    """The same words as everywhere."""
    with pytest.raises(NotFound, match="there is no agent 'nobody'"):
        measured.history.series("nobody", "a", measured.history.span(None, None, None))


def test_the_picture_of_an_instant_is_what_the_live_one_was(
    services: Services, approve: Approve, clock: FakeClock
) -> None:
    """At every minute of an outage and after it, `at` gives states, values and losses as they were shown then."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    ids = services.registry.snapshot.sets[agent.no]
    seen = []
    for k in range(40):
        clock.advance(5)
        stored = StoredRound(
            agent_no=agent.no, epoch="e", seq=k + 1, started_ms=clock.now_ms, revision=ids.revision, flags=0,
            received_ms=clock.now_ms, samples=array("i", [1000 + k, -1 if 10 <= k < 16 else 60_000 + k]),
        )  # fmt: skip
        services.rounds.write([stored], {(agent.no, "e"): k + 1}, clock.now_ms)
        services.grid.add(stored, ids.target_ids)
        seen.append((clock.now_ms, services.grid.picture_json()))
    clock.advance(3600)

    for at_ms, live in seen:
        then = at_instant(services, str(at_ms / 1000))
        assert {key: then[key] for key in ("at", "rtt_ms", "state", "loss")} == {
            key: live[key] for key in ("at", "rtt_ms", "state", "loss")
        }
    assert {row for _, live in seen for row in live["state"][0][:2]} == {"ok", "slow", "lossy", "down"}
    assert at_instant(services, str(clock.now_ms / 1000))["state"] == [["none", "none", "none"]]


def test_an_instant_beyond_what_is_kept_is_refused(services: Services) -> None:
    """Single rounds live a day; the sentence says so."""
    with pytest.raises(Invalid, match="single rounds are kept for 24 hours"):
        services.past.picture_json("-25h")


def test_what_came_late_is_part_of_the_picture_of_then(services: Services, approve: Approve, clock: FakeClock) -> None:
    """An outage of the server leaves no hole in the past once the agents have sent what they kept."""
    services.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()
    ids = services.registry.snapshot.sets[agent.no]
    started = clock.now_ms - 600_000
    stored = StoredRound(
        agent_no=agent.no, epoch="e", seq=1, started_ms=started, revision=ids.revision, flags=FLAG_LATE,
        received_ms=clock.now_ms, samples=array("i", [1234]),
    )  # fmt: skip
    services.rounds.write([stored], {(agent.no, "e"): 1}, clock.now_ms)

    assert at_instant(services, str(started / 1000 + 1))["rtt_ms"] == [[1.234, None]]
    assert at_instant(services, "now")["state"] == [["none", "none"]]


def test_times_of_a_wrong_clock_are_put_right_from_the_store_as_in_memory(
    services: Services, approve: Approve, clock: FakeClock
) -> None:
    """An agent whose clock is twenty minutes behind: rows and pictures stand where they belong."""
    services.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()
    ids = services.registry.snapshot.sets[agent.no]
    services.clocks.heard(agent.no, clock.now_ms - 1_200_000)
    remembered = remember(services.recent, services.clocks)
    for k in range(12):
        clock.advance(60)
        stored = StoredRound(
            agent_no=agent.no, epoch="e", seq=k + 1, started_ms=clock.now_ms - 1_200_000, revision=ids.revision,
            flags=0, received_ms=clock.now_ms, samples=array("i", [1000 + k]),
        )  # fmt: skip
        services.rounds.write([stored], {(agent.no, "e"): k + 1}, clock.now_ms)
        remembered(stored, ids.target_ids)
    clock.advance(1)
    span = services.history.span("-5m", None, "raw")
    from_store = services.history.series("probe-1", "a", span)
    past = at_instant(services, "-3m")
    services.recent.complete = True

    assert services.history.series("probe-1", "a", span) == from_store
    assert [sample["rtt_ms"] for sample in from_store["samples"]] == [1.007, 1.008, 1.009, 1.01, 1.011]
    assert from_store["samples"][-1]["timestamp"] == clock.now_ms / 1000 - 1
    assert past["rtt_ms"] == [[1.008, None]]
    assert past["agents"][0]["last_round"] == clock.now_ms / 1000 - 181


@pytest.mark.parametrize("minute_days", [30.0, 0.05])
def test_older_times_come_from_minutes_and_hours_and_tell_the_same(measured: Services, minute_days: float) -> None:
    """Counts, extremes and worst losses as from single rounds; each step is made of one of the two only."""
    services, sets = measured, measured.registry.columns(1)
    for due in services.rounds.hours_due(services.clock.wall_ms()):
        services.rounds.save_rolled(services.rounds.work_out(due, sets))
    parts = (services.registry, services.recent, services.rounds, services.clock, services.clocks)
    fine = History(*parts, RetentionSection())
    coarse = History(*parts, RetentionSection(raw_hours=1.5, minute_days=minute_days))
    exact = fine.series("probe-1", "a", fine.span("-4h", None, "1h"))["points"]
    rolled = coarse.series("probe-1", "a", coarse.span("-4h", None, "1h"))["points"]

    for one, other in zip(exact, rolled, strict=True):
        worst = {"loss_max"} if minute_days < 1 else set()
        same = set(one) - {"p50_ms", "p95_ms", "p99_ms"} - worst
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
        for key in ("p50_ms", "p95_ms", "p99_ms"):
            assert one[key] == pytest.approx(other[key], rel=0.125)
    assert sum(point["sent"] for point in rolled) == 240
    with pytest.raises(Invalid, match="is kept by the"):
        coarse.series("probe-1", "a", coarse.span("-4h", None, "raw"))
