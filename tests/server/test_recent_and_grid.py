"""The last hour in memory, and the picture made of it."""

from __future__ import annotations

import tracemalloc
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon.services.bundle import Services
from pingmon.services.cells import CellState, Row, Thresholds
from pingmon.services.recent import KEEP_MS, Recent
from pingmon.store.rounds import FLAG_DISTURBED, StoredRound, Window
from pingmon_agent.wire.contract import Outcome, status_of

from .conftest import Approve, FakeClock, passphrase

NOW = 1_800_000_000_000


def stored(started_ms: int, *values: int, revision: int = 1, agent_no: int = 1, flags: int = 0) -> StoredRound:
    return StoredRound(
        agent_no=agent_no,
        epoch="e",
        seq=started_ms,
        started_ms=started_ms,
        revision=revision,
        flags=flags,
        received_ms=started_ms,
        samples=array("i", values),
    )


def test_a_pair_is_read_across_target_sets() -> None:
    """A pair keeps its hour although its column moved when targets changed."""
    recent = Recent()
    recent.add(stored(NOW, 10, 20, revision=1), (7, 8))
    recent.add(stored(NOW + 5000, 21, 30, revision=2), (8, 9))

    assert recent.pair(1, 8, 0) == [(NOW, 20, 0), (NOW + 5000, 21, 0)]
    assert recent.pair(1, 9, 0) == [(NOW + 5000, 30, 0)]
    assert recent.pair(2, 8, 0) == []


def test_late_rounds_stand_where_they_belong() -> None:
    """Data that waited at the agent is sorted in, not appended."""
    recent = Recent()
    for at in (NOW, NOW + 10_000, NOW + 5_000):
        recent.add(stored(at, 1), (7,))

    assert [at for at, _, _ in recent.pair(1, 7, 0)] == [NOW, NOW + 5_000, NOW + 10_000]


@given(st.lists(st.integers(0, 3 * KEEP_MS), max_size=60), st.integers(1, 4))
def test_trimming_never_takes_the_last_hour(offsets: list[int], width: int) -> None:
    """Whatever came in and in whichever order, the last hour of every pair stays complete."""
    recent = Recent()
    ids = tuple(range(width))
    for offset in offsets:
        recent.add(stored(NOW - offset, *([offset] * width)), ids)
    since = NOW - KEEP_MS
    before = [recent.pair(1, target, since) for target in ids]

    recent.trim(NOW)

    assert [recent.pair(1, target, since) for target in ids] == before


def test_trimming_gives_memory_back() -> None:
    """A day of rounds does not stay in memory."""
    recent = Recent()
    for i in range(2000):
        recent.add(stored(NOW + i * 5000, 1, 2, 3), (1, 2, 3))
        recent.trim(NOW + i * 5000)

    assert recent.samples <= 3 * (720 + 61)


def test_a_sample_takes_little_more_than_its_four_bytes() -> None:
    """Exact values of the last hour: at most 4.2 bytes each, at any moment of the hours after the first."""
    recent, ids, samples = Recent(), tuple(range(1000)), array("i", range(1000))
    tracemalloc.start()
    try:
        before, most = tracemalloc.get_traced_memory()[0], 0.0
        for i in range(1500):
            recent.add(replace(stored(NOW + i * 5000, 1), samples=samples), ids)
            if i % 60 == 0:
                recent.trim(NOW + i * 5000)
            if i >= 700:
                most = max(most, (tracemalloc.get_traced_memory()[0] - before) / recent.samples)
    finally:
        tracemalloc.stop()

    assert recent.samples >= 720_000
    assert most <= 4.2


@pytest.fixture
def row(services: Services, approve: Approve) -> Services:
    """One approved agent with targets a and b."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    approve()
    return services


def feed(services: Services, clock: FakeClock, *columns: tuple[int, ...], flags: int = 0) -> None:
    agent_no = services.grid.layout.agents[0].no
    current = services.registry.snapshot.sets[agent_no]
    for column in columns:
        clock.advance(5)
        services.grid.add(
            stored(clock.now_ms, *column, agent_no=agent_no, revision=current.revision, flags=flags),
            current.target_ids,
        )


def states(services: Services) -> list[str]:
    return list(services.grid.picture_json()["state"][0])


@pytest.mark.parametrize(
    ("samples", "state"),
    [
        ([1000], "ok"),
        ([50_000], "slow"),
        ([200_000], "bad"),
        ([1000, -1], "lossy"),
        ([1000, -1, -3], "lossy"),
        ([1000, -1, -3, -1], "down"),
        ([-1, -1, -1, 1000], "lossy"),
        ([-1, *[1000] * 12], "ok"),
        ([-1, *[1000] * 11], "lossy"),
        ([-4], "error"),
        ([-5], "error"),
        ([-2], "none"),
    ],
)
def test_a_cell_says_what_its_last_rounds_were(row: Services, clock: FakeClock, samples: list[int], state: str) -> None:
    """One loss makes lossy, three in a row make down, twelve good ones heal."""
    feed(row, clock, *[(sample, 1) for sample in samples])

    assert states(row) == [state, "ok", "none"]


def test_a_code_that_is_not_known_is_an_error(row: Services, clock: FakeClock) -> None:
    """As a newer agent or a damaged row may have it: never a reply, and no fault of a page."""
    feed(row, clock, (100, 1), (-99, 1))

    assert states(row) == ["error", "ok", "none"]
    assert [status_of(sample) for sample in (100, -99, Outcome.NOT_PROBED)] == ["ok", "error", None]


def test_a_disturbed_round_proves_no_loss(row: Services, clock: FakeClock) -> None:
    """What a starved agent did not receive is not held against the network."""
    feed(row, clock, (1000, 1000))
    feed(row, clock, (-1, 1000), (-1, 1000), (-1, 1000), flags=FLAG_DISTURBED)

    assert states(row)[0] == "ok"
    assert row.grid.picture_json()["loss"][0][0] == 0.0
    assert row.grid.picture_json()["agents"][0]["disturbed"]
    feed(row, clock, (1000, 1000))
    assert not row.grid.picture_json()["agents"][0]["disturbed"]


def test_a_disturbed_round_colours_nothing_that_was_never_measured(row: Services, clock: FakeClock) -> None:
    """A cell without one reply is not green because its only loss does not count."""
    feed(row, clock, (-1, 1000), flags=FLAG_DISTURBED)

    assert states(row)[:2] == ["none", "ok"]


@pytest.mark.parametrize("behind_s", [20, 3600, -50])
def test_an_agent_with_a_wrong_clock_is_not_stale_while_it_reports(
    row: Services, clock: FakeClock, behind_s: int
) -> None:
    """Silence is measured by the server's own clock, and a clock that steps back does not freeze the row."""
    feed(row, clock, (1000, 1000), (1000, 1000))
    view = row.grid.layout.agents[0]
    current = row.registry.snapshot.sets[view.no]
    for seq, sample in ((1, 1000), (2, 70_000)):
        clock.advance(5)
        late = stored(clock.now_ms - behind_s * 1000, sample, sample, agent_no=view.no, revision=current.revision)
        late = replace(late, epoch="other", seq=seq, received_ms=clock.now_ms)
        row.grid.add(late, current.target_ids)

    assert states(row)[:2] == ["slow", "slow"]
    assert row.grid.row(view.no, clock.now_ms).heard_ms == clock.now_ms


def test_a_server_clock_that_was_ahead_does_not_freeze_legacy_rows(row: Services, clock: FakeClock) -> None:
    """Legacy samples are ordered by time; one from the future is not believed."""
    view = row.grid.layout.agents[0]
    current = row.registry.snapshot.sets[view.no]

    def legacy(sample: int) -> None:
        one = stored(clock.now_ms, sample, sample, agent_no=view.no, revision=current.revision)
        row.grid.add(replace(one, epoch="legacy"), current.target_ids)

    clock.advance(86_400)
    legacy(1000)
    clock.advance(-86_400)
    legacy(70_000)

    assert states(row)[:2] == ["slow", "slow"]


def test_being_seen_makes_no_new_layout(row: Services, clock: FakeClock) -> None:
    """A browser gets the whole picture again when rows or columns change, not when somebody was last heard of."""
    version = row.grid.layout.version
    clock.advance(60)
    row.registry.touch(row.grid.layout.agents[0].no)
    row.registry.flush_seen()
    passphrase(row)

    assert row.grid.layout.version == version


def test_a_silent_agent_turns_stale(row: Services, clock: FakeClock) -> None:
    """After three intervals without a round nobody believes the old colours; cells never measured stay empty."""
    feed(row, clock, (1000, -2))
    clock.advance(15)
    assert states(row) == ["ok", "none", "none"]

    clock.advance(1)

    assert states(row) == ["stale", "none", "none"]


def test_loss_is_the_share_of_the_last_twelve(row: Services, clock: FakeClock) -> None:
    """The number beside the colour is plain arithmetic."""
    feed(row, clock, *[(-1, 1)] * 3, *[(5, 1)] * 9)

    assert row.grid.picture_json()["loss"][0] == [0.25, 0.0, None]


def test_a_cell_survives_a_change_of_targets(row: Services, clock: FakeClock) -> None:
    """Adding a target does not blank the picture, removing one moves the others to their new place."""
    feed(row, clock, (1000, -1), (1000, -1), (1000, -1))
    row.registry.add_target("c", "192.0.2.12", "test")
    assert states(row) == ["ok", "down", "none", "none"]

    row.registry.remove_target("a", "test")
    feed(row, clock, (-1, 7))

    assert [t["name"] for t in row.grid.picture_json()["targets"]] == ["b", "probe-1", "c"]
    assert states(row) == ["down", "none", "ok"]


def test_late_data_does_not_repaint_the_picture(row: Services, clock: FakeClock) -> None:
    """Rounds from an outage fill the history; the grid goes on showing now."""
    feed(row, clock, (1000, 1000))
    agent_no = row.grid.layout.agents[0].no
    current = row.registry.snapshot.sets[agent_no]

    late = stored(clock.now_ms - 60_000, -1, -1, agent_no=agent_no, revision=current.revision)
    row.grid.add(late, current.target_ids)

    assert states(row)[:2] == ["ok", "ok"]


def test_rows_for_browsers_have_one_value_and_state_per_column(row: Services, clock: FakeClock) -> None:
    """Bytes and layout always have the same width."""
    feed(row, clock, (1234, -1))
    picture = row.grid.row(row.grid.layout.agents[0].no, clock.now_ms)

    assert picture.last.tolist() == [1234, -1, -2]
    assert list(picture.states) == [CellState.OK, CellState.LOSSY, CellState.NONE]


def test_held_agents_keep_their_row_and_rejected_ones_go(row: Services) -> None:
    """The picture shows whom we measure with."""
    row.registry.hold("probe-1", "test")
    assert [a["state"] for a in row.grid.layout_json()["agents"]] == ["hold"]

    row.registry.reject("probe-1", "test")
    assert row.grid.layout_json()["agents"] == []


SAMPLES = st.one_of(st.integers(0, 300_000), st.sampled_from([-1, -2, -3, -4, -5, -6, -7]))


@given(
    st.integers(1, 400),
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 39), SAMPLES, max_size=12), st.booleans()), min_size=1, max_size=30
    ),
)
def test_the_short_way_through_a_round_gives_what_the_long_one_does(
    quiet: int, rounds: list[tuple[dict[int, int], bool]]
) -> None:
    """Cells without trouble are worked out all at once; whatever came before, the picture is that of one by one."""
    limits = Thresholds(50_000, 200_000)
    short, long = Row.empty(1, tuple(range(40))), Row.empty(1, tuple(range(40)))
    for k, (exceptions, disturbed) in enumerate([({}, False)] * 12 + rounds):
        samples = [exceptions.get(i, 1000 * quiet + i) for i in range(40)]
        taken = stored(NOW + k * 5000, *samples, flags=FLAG_DISTURBED * (disturbed and k % 3 == 0))
        short.take(taken, limits)
        long.odd = set(range(40))
        long.take(taken, limits)

        assert (short.last, short.states, short.lost, short.dead, short.sent) == (
            long.last, long.states, long.lost, long.dead, long.sent,
        )  # fmt: skip


@given(
    st.integers(1, 400),
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 9), SAMPLES, max_size=4), st.booleans()), min_size=8, max_size=20
    ),
)
def test_a_window_at_once_is_its_rounds_one_by_one(quiet: int, rounds: list[tuple[dict[int, int], bool]]) -> None:
    """The picture of an instant is that of somebody who had looked on all the time."""
    limits = Thresholds(50_000, 200_000)
    window = [
        stored(
            NOW + k * 5000, *(own.get(i, 1000 * quiet + i) for i in range(10)), flags=FLAG_DISTURBED * (odd and k > 15)
        )
        for k, (own, odd) in enumerate(rounds)
    ]
    at_once, one_by_one = Row.empty(1, tuple(range(10))), Row.empty(1, tuple(range(10)))
    missed = {i for taken in window for i, us in enumerate(taken.samples) if us < 0}
    odd = {i: [taken.samples[i] for taken in window] for i in missed}
    done = at_once.take_window(Window(list(window), window[-1].samples, odd), limits)
    for taken in window:
        one_by_one.take(taken, limits)

    assert done == (len(window) >= 12 and not any(taken.flags for taken in window))
    if done:
        assert (at_once.last, at_once.states) == (one_by_one.last, one_by_one.states)
        assert at_once.losses() == one_by_one.losses()
