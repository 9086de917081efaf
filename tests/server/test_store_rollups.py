"""Minutes and hours: right to the last sample, kept up with late rounds, dropped in their time."""

from __future__ import annotations

import math
import sqlite3
import threading
from array import array
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingmon.services.bundle import Services
from pingmon.store.compaction import HOUR_MS
from pingmon.store.rolling import DROP_ROWS, MINUTE_MS
from pingmon.store.rollups import Rollup, bucket, bucket_floor, merged
from pingmon.store.rounds import FLAG_CLOCK, FLAG_DISTURBED, SqliteRounds, StoredRound
from pingmon_agent.wire.contract import Outcome
from tests.support.fresh import fresh_rounds

from .conftest import Approve, FakeClock
from .test_store_chunks import compact_all

T0 = 500_000 * HOUR_MS
# The third set measures target 3 twice, has targets on two shelves, and is out of order.
SETS = {1: (1, 2), 2: (2, 3, 40), 3: (40, 3, 3, 1)}
LOST = {Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED}
ROUND = st.tuples(
    st.integers(0, 2 * HOUR_MS - 1),
    st.sampled_from(list(SETS)),
    st.sampled_from([0, FLAG_DISTURBED, FLAG_CLOCK]),
    st.lists(st.one_of(st.integers(-7, 40), st.integers(0, 60_000_000)), min_size=4, max_size=4),
)


@given(st.integers(0, 60_000_000))
def test_buckets_are_an_eighth_of_an_octave(us: int) -> None:
    """Each RTT lies in its bucket, whose width is at most an eighth of its floor; all fit one byte."""
    number = bucket(us)
    low, high = bucket_floor(number), bucket_floor(number + 1)

    assert low <= us < high
    assert high - low <= max(1, low / 8)
    assert number < 256


def expected(rounds: list[StoredRound], target: int, start_ms: int, length_ms: int) -> Rollup | None:
    """The slow way."""
    replies, lost, disturbed = [], 0, 0
    for r in rounds:
        if not start_ms <= r.started_ms < start_ms + length_ms:
            continue
        for at, target_id in enumerate(SETS[r.revision]):
            if target_id == target and r.samples[at] >= 0:
                replies.append(r.samples[at])
            elif target_id == target and r.samples[at] in LOST:
                disturbed += r.flags & FLAG_DISTURBED
                lost += 1 - (r.flags & FLAG_DISTURBED)
    if not replies and not lost and not disturbed:
        return None
    replies.sort()
    quantiles = [
        replies[max(math.ceil(q * len(replies) / 100), 1) - 1] if replies else None for q in (0, 50, 95, 99, 100)
    ]
    histogram = tuple(sorted(Counter(map(bucket, replies)).items()))
    return Rollup(start_ms, len(replies) + lost, lost, disturbed, *quantiles, histogram)  # type: ignore[arg-type]


def stored(seq: int, drawn: tuple[int, int, int, list[int]]) -> StoredRound:
    started, revision, flags, values = drawn
    # Some minutes with many rounds, most with none.
    started = started // HOUR_MS * HOUR_MS + started % HOUR_MS % (5 * MINUTE_MS)
    return StoredRound(
        agent_no=1,
        epoch="e",
        seq=seq,
        started_ms=T0 + started,
        revision=revision,
        flags=flags,
        received_ms=T0 + started,
        samples=array("i", values[: len(SETS[revision])]),
    )


def roll(store: SqliteRounds, before_ms: int) -> int:
    due = store.hours_due(before_ms)
    for which in due:
        store.save_rolled(store.work_out(which, {revision: SETS[revision] for revision in which.revisions}))
    return len(due)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(parts=st.lists(st.tuples(st.lists(ROUND, min_size=1, max_size=40), st.booleans()), min_size=1, max_size=3))
def test_roll_ups_are_what_the_slow_way_finds(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[list[tuple[int, int, int, list[int]]], bool]]
) -> None:
    """Any outcomes, sets and flags, raw or compacted, late or not: every minute and hour of every target is right."""
    store = fresh_rounds(tmp_path_factory.mktemp("rollups"))
    rounds: list[StoredRound] = []
    for drawn, compacted in parts:
        fresh = [stored(len(rounds) + i + 1, d) for i, d in enumerate(drawn)]
        rounds += fresh
        store.write(fresh, {(1, "e"): len(rounds)}, T0)
        if compacted:
            compact_all(store, T0 + 2 * HOUR_MS)
        assert roll(store, T0 + 2 * HOUR_MS) >= 1
        assert roll(store, T0 + 2 * HOUR_MS) == 0

    for target in (1, 2, 3, 40):
        for read, length in ((store.minutes, MINUTE_MS), (store.hours, HOUR_MS)):
            starts = range(T0, T0 + 2 * HOUR_MS, length)
            wanted = [r for start in starts if (r := expected(rounds, target, start, length))]
            assert read(1, target, 0, 2 * T0) == wanted
            assert read(1, target, T0 + 1, T0 + HOUR_MS) == [r for r in wanted if T0 < r.start_ms < T0 + HOUR_MS]
        assert merged(store.minutes(1, target, 0, 2 * T0)) == merged(store.hours(1, target, 0, 2 * T0))
    store.close()


def a_round(seq: int, started_ms: int, *values: int) -> StoredRound:
    return StoredRound(
        agent_no=1,
        epoch="e",
        seq=seq,
        started_ms=started_ms,
        revision=1,
        flags=0,
        received_ms=started_ms,
        samples=array("i", values),
    )


def test_what_is_dropped_raw_stays_in_the_roll_ups(tmp_path: Path) -> None:
    """An hour of which less is stored than was worked in is not due: retention takes nothing out of it."""
    store = fresh_rounds(tmp_path)
    store.write([a_round(i + 1, T0 + i * 5000, i, -1) for i in range(100)], {(1, "e"): 100}, T0)
    roll(store, T0 + HOUR_MS)
    while store.drop_before(T0 + 250_000):
        pass

    assert roll(store, T0 + HOUR_MS) == 0
    (hour,) = store.hours(1, 1, T0, T0 + 1)
    assert (hour.sent, hour.lost, hour.max_us) == (100, 0, 99)
    (hour,) = store.hours(1, 2, T0, T0 + 1)
    assert (hour.sent, hour.lost, hour.max_us, hour.histogram) == (100, 100, None, ())
    store.close()


def test_many_replies_in_one_bucket(tmp_path: Path) -> None:
    """More than a byte can count: nothing is lost of the histogram."""
    store = fresh_rounds(tmp_path)
    store.write([a_round(i + 1, T0 + i * 50, 20_000, 5 + i % 2) for i in range(1020)], {(1, "e"): 1020}, T0)
    roll(store, T0 + HOUR_MS)

    assert store.minutes(1, 1, T0, T0 + HOUR_MS)[0].histogram == ((bucket(20_000), 1020),)
    assert store.hours(1, 2, T0, T0 + HOUR_MS)[0].histogram == ((5, 510), (6, 510))
    store.close()


def test_roll_ups_are_dropped_in_their_time(tmp_path: Path) -> None:
    """Minutes before hours, in batches, and both as settings say."""
    store = fresh_rounds(tmp_path)
    for hour in range(3):
        store.write([a_round(hour + 1, T0 + hour * HOUR_MS, 1, 2)], {(1, "e"): hour + 1}, T0)
    roll(store, T0 + 3 * HOUR_MS)
    with sqlite3.connect(tmp_path / "samples.db") as db:
        for shelf in range(1, DROP_ROWS + 1):
            db.execute("INSERT INTO minute_rollups VALUES (1, ?, ?, x'')", (shelf, T0 // HOUR_MS))
    db.close()

    dropped = [store.drop_rolled(T0 + 2 * HOUR_MS, T0 + HOUR_MS) for _ in range(3)]

    assert dropped == [DROP_ROWS + 2, 2, 0]
    assert [r.start_ms for r in store.minutes(1, 1, 0, 2 * T0)] == [T0 + 2 * HOUR_MS]
    assert [r.start_ms for r in store.hours(1, 1, 0, 2 * T0)] == [T0 + HOUR_MS, T0 + 2 * HOUR_MS]
    store.close()


def test_retention_follows_the_settings(committing: Services, clock: FakeClock) -> None:
    """Minutes for `minute_days`, hours for `hour_days`, dropped through the committer."""
    day = 24 * HOUR_MS
    now = clock.now_ms // HOUR_MS * HOUR_MS
    starts = [now - age * day for age in (401, 399, 31, 29)]
    committing.rounds.write([a_round(i + 1, start, 1, 2) for i, start in enumerate(starts)], {(1, "e"): 4}, now)
    roll(committing.rounds, now)

    committing.retention.run()
    for _ in range(6):
        done = threading.Event()
        committing.ingest.between_commits(done.set)
        assert done.wait(5)

    assert [r.start_ms for r in committing.rounds.minutes(1, 1, 0, now)] == starts[3:]
    assert [r.start_ms for r in committing.rounds.hours(1, 1, 0, now)] == starts[1:]
    assert list(committing.rounds.since(0)) == []


def test_the_job_works_out_whole_hours(committing: Services, approve: Approve, clock: FakeClock) -> None:
    """Hours that ended an hour ago, with the sets of the directory; a damaged one is left, and the others are done."""
    committing.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent, target = approve(), committing.registry.target("b")
    clock.now_ms = clock.now_ms // HOUR_MS * HOUR_MS + 60_000
    start = clock.now_ms - 60_000 - 3 * HOUR_MS
    rows = [a_round(i + 1, start + i * 60_000, 100 + i, 200 + i) for i in range(180)]
    committing.rounds.write(rows, {(agent.no, "e"): 180}, clock.now_ms)
    compact_all(committing.rounds, start + HOUR_MS)
    with sqlite3.connect(committing.config.data_dir / "samples.db") as db:
        db.execute("UPDATE chunks SET data = zeroblob(length(data))")
    db.close()

    committing.rollups.run()
    done = threading.Event()
    committing.ingest.between_commits(lambda: committing.ingest.between_commits(done.set))
    assert done.wait(5)

    (hour,) = committing.rounds.hours(agent.no, target.id, 0, clock.now_ms)
    assert (hour.start_ms, hour.sent, hour.min_us, hour.max_us) == (start + HOUR_MS, 60, 260, 319)
    assert len(committing.rounds.minutes(agent.no, target.id, 0, clock.now_ms)) == 60
    assert [due.hour for due in committing.rounds.hours_due(start + 2 * HOUR_MS)] == [start // HOUR_MS]
