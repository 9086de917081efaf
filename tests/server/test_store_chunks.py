"""Compaction: no read may tell whether a round is raw or in a chunk."""

from __future__ import annotations

import random
import sqlite3
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pingmon.services.bundle import Services
from pingmon.store import chunks, compaction
from pingmon.store.chunks import Chunk, Encoded, Row
from pingmon.store.compaction import HOUR_MS, MIN_ROUNDS, Part
from pingmon.store.rounds import RoundHead, SqliteRounds, StoredRound, StoreError
from pingmon.store.tiles import ChunkError
from pingmon_agent.wire.contract import Outcome
from tests.support.fresh import fresh_rounds

from .conftest import FakeClock

T0 = 500_000 * HOUR_MS
INT32 = st.integers(-(2**31), 2**31 - 1)
LIKELY = st.one_of(st.integers(-7, 70_000), st.sampled_from([-1, 0, 20_000]), INT32)


def read(encoded: Encoded) -> Chunk:
    return Chunk(
        encoded.rounds,
        encoded.width,
        encoded.tile_columns,
        encoded.tile_rounds,
        encoded.heads,
        encoded.bases,
        encoded.ends,
        lambda start, end: encoded.data[start:end],
    )


def rows_of(matrix: Sequence[Sequence[int]]) -> list[Row]:
    return [
        Row(T0 + 5000 * i, 3, i + 1, i % 4, T0 + 5000 * i + 1000, array("i", values).tobytes())
        for i, values in enumerate(matrix)
    ]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_chunk_alters_nothing(data: st.DataObject) -> None:
    """Whatever the values, rows and columns come out as they went in; also where tiles end."""
    width = data.draw(st.sampled_from([1, 2, 31, 32, 33, 70]))
    height = data.draw(st.sampled_from([1, 17, 18, 19, 40]))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    pool = data.draw(st.lists(LIKELY, min_size=1, max_size=12))
    matrix = [[rng.choice(pool) for _ in range(width)] for _ in range(height)]
    chunk = read(chunks.encode(rows_of(matrix)))

    assert [list(row) for row in chunk.rows(0, chunk.rounds)] == matrix
    for first, last in ((0, 1), (len(matrix) // 3, len(matrix) // 2), (len(matrix) - 1, len(matrix)), (0, 0)):
        assert [list(row) for row in chunk.rows(first, last)] == matrix[first:last]
    first = data.draw(st.integers(0, height))
    last = data.draw(st.integers(first, height))
    at = data.draw(st.integers(0, width - 1))
    assert chunk.column(at, first, last) == [row[at] for row in matrix[first:last]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 2**45)] * 5), min_size=1, max_size=50))
def test_what_is_known_of_rounds_comes_back(numbers: list[tuple[int, int, int, int, int]]) -> None:
    """Times, epochs, sequence numbers, flags and arrivals, however they jump."""
    chunk = read(chunks.encode([Row(*row, b"\1\0\0\0") for row in numbers]))

    assert list(zip(*(chunk.numbers(which) for which in range(5)), strict=True)) == numbers


def realistic(rounds: int, width: int, sigma_us: float, seed: int = 1) -> list[list[int]]:
    """Gamma jitter at microsecond resolution, drift, 0.3 % spikes, 0.2 % loss; one column per target."""
    rng = random.Random(seed)
    columns = []
    for _ in range(width):
        base, column = rng.uniform(200, 20_000), []
        for _ in range(rounds):
            base += rng.gauss(0, sigma_us / 50)
            value = base + rng.gammavariate(2, sigma_us / 2**0.5)
            value += rng.expovariate(1 / (20 * sigma_us)) if rng.random() < 0.003 else 0
            column.append(-1 if rng.random() < 0.002 else max(1, round(value)))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def test_an_hour_takes_less_than_one_and_a_half_bytes_a_sample() -> None:
    """The size the store is planned with: 200 us of jitter, times and all; and twice that is still below 1.5."""
    for sigma, limit in ((15, 0.95), (200, 1.4), (400, 1.5)):
        encoded = chunks.encode(rows_of(realistic(720, 64, sigma)))
        size = sum(len(part) for part in (encoded.heads, encoded.bases, encoded.ends, encoded.data))
        assert size / (720 * 64) < limit, sigma


@pytest.mark.parametrize("field", ["heads", "bases", "ends", "data"])
def test_damage_is_noticed(field: str) -> None:
    """A chunk that lost bytes is an error with a reason, never other values."""
    encoded = chunks.encode(rows_of([[1, 2, 300]] * 20))
    damaged = read(encoded._replace(**{field: getattr(encoded, field)[:-4]}))

    def use() -> None:
        damaged.numbers(4)
        damaged.rows(0, damaged.rounds)

    with pytest.raises(ChunkError):
        use()


@pytest.mark.parametrize("field", ["heads", "bases", "ends", "data"])
def test_no_byte_of_a_chunk_may_be_another(field: str) -> None:
    """Whichever byte changes: an error, never another value."""
    rng = random.Random(27)
    encoded = chunks.encode(rows_of([[rng.randrange(400_000) for _ in range(40)] for _ in range(50)]))
    whole = getattr(encoded, field)
    for at in range(len(whole)):
        other = bytearray(whole)
        other[at] ^= 1 << rng.randrange(8)
        damaged = read(encoded._replace(**{field: bytes(other)}))
        with pytest.raises(ChunkError):
            damaged.rows(0, 50)


def test_a_chunk_of_before_there_were_checksums_of_tiles_is_read() -> None:
    """Its `ends` is as long as it has tiles, and nothing more."""
    values = [[1, 2, 300], [4, -1, 600]] * 20
    encoded = chunks.encode(rows_of(values))
    tiles = -(-40 // chunks.TILE_ROUNDS)

    old = read(encoded._replace(ends=encoded.ends[: 4 * tiles]))

    assert [list(row) for row in old.rows(0, 40)] == values


# -- the store: two of them, of which one is compacted --

ROUND = st.tuples(
    st.integers(1, 2),  # agent
    st.sampled_from(["aa", "bb"]),  # epoch
    st.integers(0, 3 * HOUR_MS),  # start
    st.integers(1, 2),  # revision
    st.sampled_from([0, 1, 3]),  # flags
    st.lists(st.sampled_from([-1, -2, 0, 5, 1000, 70_000, 2**31 - 1, -(2**31)]), min_size=3, max_size=3),
)
STEP = st.one_of(
    st.lists(ROUND, min_size=1, max_size=30),
    st.integers(0, 4),  # compact all that started before this hour
)


def stored(number: int, drawn: tuple[int, str, int, int, int, list[int]]) -> StoredRound:
    agent_no, epoch, started, revision, flags, values = drawn
    # Few different moments, so that rounds of one moment meet in raw rows and chunks.
    started_ms = T0 + started // 400_000 * 400_000
    return StoredRound(
        agent_no=agent_no,
        epoch=epoch,
        seq=number,
        started_ms=started_ms,
        revision=revision,
        flags=flags,
        received_ms=started_ms + 7 * number,
        # The second set has a column more; what it measures twice stands at 0 and 2.
        samples=array("i", values[: revision + 1]),
    )


def compact_all(store: SqliteRounds, before_ms: int) -> int:
    moved = 0
    for part in store.compactable(before_ms):
        while count := store.compact(part):
            moved += count
    return moved


def all_reads(store: SqliteRounds) -> list[object]:
    columns = {1: (1,), 2: (2, 0)}
    edges = [T0 + minutes * 60_000 + late for minutes in (0, 20, 60, 77, 120, 190) for late in (0, 1)]
    return [
        store.cursors(),
        store.facts().oldest_ms,
        *(list(store.since(edge)) for edge in edges),
        *(store.pair(agent, columns, edges[i], edges[j]) for agent in (1, 2) for i in range(4) for j in range(i, 12)),
        *(store.pair(1, {2: (0,)}, edge, T0 + 9 * HOUR_MS) for edge in edges),
        *(store.between(agent, one, other) for agent in (1, 2) for one in edges for other in edges),
    ]


def check_windows(store: SqliteRounds) -> int:
    """A window is what the rounds one by one say; returns how many there were to compare."""
    edges, found = [T0 + minutes * 60_000 for minutes in range(0, 200, 10)], 0
    for agent in (1, 2):
        all_rounds = store.between(agent, edges[0], edges[-1])
        for since, until in combinations(edges, 2):
            window = store.window(agent, since, until)
            if window is None:
                continue
            found += 1
            rounds = [r for r in all_rounds if since <= r.started_ms < until]
            assert window.heads == [
                RoundHead(**{f.name: getattr(r, f.name) for f in fields(RoundHead)}) for r in rounds
            ]
            assert window.newest == rounds[-1].samples
            missed = {i for r in rounds for i, us in enumerate(r.samples) if us < 0}
            assert window.odd == {i: [r.samples[i] for r in rounds] for i in missed}
    return found


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEP, min_size=2, max_size=8))
@example(
    steps=[
        [(1, "aa", 0, 1, 0, [1, 2, 3])] * 20,
        1,
        [(1, "aa", 0, 1, 1, [4, 5, 6])] * 9,
        2,
        [(1, "bb", 9, 1, 0, [7, 8, 9])],
    ]
)
def test_compaction_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, str, int, int, int, list[int]]] | int]
) -> None:
    """Any rounds, compacted at any moments, late ones too: all reads equal those of a store without compaction."""
    home, number = tmp_path_factory.mktemp("twins"), 0
    compacted, plain = fresh_rounds(home / "compacted"), fresh_rounds(home / "plain")
    patch = pytest.MonkeyPatch()
    patch.setattr(compaction, "MIN_ROUNDS", 2)
    patch.setattr(chunks, "TILE_ROUNDS", 3)
    for step in steps:
        if isinstance(step, int):
            compact_all(compacted, T0 + step * HOUR_MS)
            continue
        rounds = [stored(number + i + 1, drawn) for i, drawn in enumerate(step)]
        number += len(rounds)
        for store in (compacted, plain):
            store.write(rounds, {(r.agent_no, r.epoch): r.seq for r in rounds}, T0)

    patch.undo()
    assert all_reads(compacted) == all_reads(plain)
    check_windows(compacted)
    compacted.close()
    plain.close()


def fill(store: SqliteRounds, count: int, first: int = 1, width: int = 3, started_ms: int = T0) -> list[StoredRound]:
    rounds = [
        StoredRound(
            agent_no=1,
            epoch="e",
            seq=first + i,
            started_ms=started_ms + 5000 * i,
            revision=1,
            flags=0,
            received_ms=started_ms + 5000 * i + 1000,
            samples=array("i", range(i, i + width)),
        )
        for i in range(count)
    ]
    store.write(rounds, {(1, "e"): first + count - 1}, started_ms)
    return rounds


def test_a_window_reaches_from_chunk_to_chunk_and_into_raw_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses here and there, replies small and large, over the ends of tiles, chunks and hours."""
    monkeypatch.setattr(compaction, "MAX_SAMPLES", 70 * 18 * 2)
    store, chance = fresh_rounds(tmp_path), random.Random(7)
    bases = [chance.choice((0, 5, 240, 250, 70_000, 20_000_000)) for _ in range(70)]
    lost, rounds = (Outcome.TIMEOUT, Outcome.NOT_PROBED, Outcome.NOT_SENT), []
    for plain in fill(store, 200, width=70, started_ms=T0 + 50 * 60_000):
        values = [chance.choice(lost) if chance.random() < 0.05 else base + chance.randrange(300) for base in bases]
        rounds.append(replace(plain, agent_no=2, samples=array("i", values)))
    store.write(rounds, {(2, "e"): 200}, T0)
    compact_all(store, T0 + HOUR_MS)

    assert check_windows(store) == 2 * sum(1 for a, b in combinations(range(0, 200, 10), 2) if b > 50 and a < 67)
    assert [part.hour for part in store.compactable(T0 + 9 * HOUR_MS)] == [T0 // HOUR_MS + 1] * 2
    store.close()


def test_a_wide_hour_becomes_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk takes the committer a bounded time, whatever the number of targets; nothing is left over."""
    monkeypatch.setattr(compaction, "MAX_SAMPLES", 3 * 18 * 2)
    store = fresh_rounds(tmp_path)
    rounds = fill(store, 100)
    (part,) = store.compactable(T0 + HOUR_MS)

    assert part == Part(1, 1, T0 // HOUR_MS, 3)
    assert [store.compact(part) for _ in range(4)] == [36, 36, 28, 0]
    assert list(store.since(0)) == rounds
    assert store.compactable(T0 + HOUR_MS) == []
    store.close()


def test_a_few_late_rounds_stay_raw_and_many_become_a_second_chunk(tmp_path: Path) -> None:
    """A chunk of two rounds would be no smaller than they are."""
    store = fresh_rounds(tmp_path)
    fill(store, 20)
    assert compact_all(store, T0 + HOUR_MS) == 20

    fill(store, MIN_ROUNDS - 1, first=21)
    assert compact_all(store, T0 + HOUR_MS) == 0
    fill(store, 1, first=20 + MIN_ROUNDS)
    assert compact_all(store, T0 + HOUR_MS) == MIN_ROUNDS

    assert sorted(r.seq for r in store.since(0)) == list(range(1, 21 + MIN_ROUNDS))
    store.close()


def test_compaction_takes_turns_with_commits(committing: Services, clock: FakeClock) -> None:
    """The scheduler's job compacts whole hours that ended an hour ago, and nothing younger."""
    now = clock.now_ms // HOUR_MS * HOUR_MS + 20 * 60_000
    clock.now_ms = now
    rounds = fill(committing.rounds, 3 * 720 + 300, started_ms=now - 20 * 60_000 - 3 * HOUR_MS)

    committing.compaction.run()
    for _ in range(4):
        done = threading.Event()
        committing.ingest.between_commits(done.set)
        assert done.wait(5)

    assert committing.compaction.rounds == 2 * 720
    assert list(committing.rounds.since(0)) == rounds
    assert committing.rounds.compactable(now - 20 * 60_000 - HOUR_MS) == []
    clock.advance(3600)
    committing.compaction.run()
    done = threading.Event()
    committing.ingest.between_commits(lambda: committing.ingest.between_commits(done.set))
    assert done.wait(5)
    assert committing.compaction.rounds == 3 * 720


def test_a_full_disk_puts_compaction_off(services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be written is tried once per run, not once per chunk; later all is done."""
    store, jobs = services.rounds, list[Callable[[], object]]()
    monkeypatch.setattr(services.ingest, "between_commits", jobs.append)
    fill(store, 1440, started_ms=clock.now_ms // HOUR_MS * HOUR_MS - 5 * HOUR_MS)
    with sqlite3.connect(services.config.data_dir / "samples.db") as db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON chunks BEGIN SELECT RAISE(ABORT, 'disk is full'); END")

    services.compaction.run()
    with pytest.raises(StoreError, match="disk is full"):
        jobs.pop()()

    assert jobs == []
    db.execute("DROP TRIGGER no")
    db.commit()
    db.close()
    services.compaction.run()
    services.compaction.run()  # while the first is at it: changes nothing
    (job,) = jobs
    jobs.clear()
    job()
    assert services.compaction.rounds == 720  # one chunk, then the committer commits
    while jobs:
        jobs.pop()()
    assert services.compaction.rounds == 1440


def test_a_crash_in_the_middle_leaves_raw_rounds(tmp_path: Path) -> None:
    """The chunk is written, then its rounds cannot be deleted: neither happened, and the next try does both."""
    store = fresh_rounds(tmp_path)
    rounds = fill(store, 20)
    with sqlite3.connect(tmp_path / "samples.db") as db:
        db.execute("CREATE TRIGGER no BEFORE DELETE ON rounds BEGIN SELECT RAISE(ABORT, 'pulled the plug'); END")
    (part,) = store.compactable(T0 + HOUR_MS)

    with pytest.raises(StoreError, match="pulled the plug"):
        store.compact(part)

    assert db.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    assert list(store.since(0)) == rounds
    db.execute("DROP TRIGGER no")
    db.commit()
    db.close()
    assert store.compact(part) == 20
    assert list(store.since(0)) == rounds
    store.close()


def test_a_damaged_chunk_is_a_sentence(tmp_path: Path) -> None:
    """Whoever reads it is told what to do, and other readers go on."""
    store = fresh_rounds(tmp_path)
    fill(store, 20)
    compact_all(store, T0 + HOUR_MS)
    with sqlite3.connect(tmp_path / "samples.db") as db:
        db.execute("UPDATE chunks SET data = zeroblob(length(data))")
    db.close()

    with pytest.raises(StoreError, match=r"a chunk of samples\.db is damaged: .*; `pingmon db check` says which"):
        store.pair(1, {1: (0,)}, 0, 2 * T0)
    with pytest.raises(StoreError, match="damaged"):
        store.between(1, 0, 2 * T0)
    assert store.cursors() == {(1, "e"): 20}
    store.close()


def test_chunks_go_as_a_whole_with_their_youngest_round(tmp_path: Path) -> None:
    """Retention drops no part of a chunk, and keeps the epoch as long as one stays."""
    store = fresh_rounds(tmp_path)
    fill(store, 700, width=1000)
    compact_all(store, T0 + HOUR_MS)
    last = T0 + 699 * 5000

    assert store.drop_before(last) == 396  # the first of two chunks
    assert len(list(store.since(0))) == 304
    assert store.drop_before(last + 1) == 304
    assert store.drop_before(last + 1) == 0
    assert list(store.since(0)) == []
    assert store.facts().oldest_ms is None
    store.close()


def test_space_is_given_back(tmp_path: Path) -> None:
    """What is dropped leaves the disk too, in steps, but for what the next hour needs anyway."""
    store = fresh_rounds(tmp_path)
    for hour in range(4):
        fill(store, 720, first=720 * hour + 1, width=1500, started_ms=T0 + hour * HOUR_MS)
    file = tmp_path / "samples.db"
    full = file.stat().st_size
    while store.drop_before(T0 + 9 * HOUR_MS):
        pass
    steps = 0
    while store.give_back():
        steps += 1

    assert 3 <= steps <= 20
    assert file.stat().st_size < full / 2
    fill(store, 720, width=1500)
    assert not store.give_back()
    store.close()
