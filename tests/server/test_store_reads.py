"""Reading the sample store: rounds within a time, one pair over time."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pingmon.store.rounds import FLAG_DISTURBED, SqliteRounds, StoredRound, StoreError
from tests.support.fresh import fresh_rounds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRounds]:
    opened = fresh_rounds(tmp_path)
    yield opened
    opened.close()


def row(
    seq: int,
    started_ms: int,
    values: tuple[int, ...],
    *,
    agent_no: int = 1,
    revision: int = 1,
    flags: int = 0,
    epoch: str = "e",
) -> StoredRound:
    return StoredRound(
        agent_no=agent_no,
        epoch=epoch,
        seq=seq,
        started_ms=started_ms,
        revision=revision,
        flags=flags,
        received_ms=started_ms + 1,
        samples=array("i", values),
    )


def test_a_pair_is_read_across_revisions(store: SqliteRounds) -> None:
    """Each revision has the target elsewhere, or several times; ends, order, flags and other agents are respected."""
    rows = [
        row(3, 3000, (30, 31, 32), revision=2, flags=FLAG_DISTURBED),
        row(1, 1000, (10, 11)),
        row(2, 2000, (20, -1)),
        row(4, 4000, (40, 41, 42), revision=3),
        row(5, 5000, (50, 51), revision=1),
        row(1, 2500, (7, 8), agent_no=2),
    ]
    store.write(rows, {(1, "e"): 5, (2, "e"): 1}, 5)

    assert store.pair(1, {1: (1,), 2: (2, 0)}, 1000, 5000) == [
        (1000, 11, 0),
        (2000, -1, 0),
        (3000, 32, FLAG_DISTURBED),
        (3000, 30, FLAG_DISTURBED),
    ]
    assert store.pair(1, {1: (0,)}, 1001, 5001) == [(2000, 20, 0), (5000, 50, 0)]
    assert store.pair(2, {1: [1]}, 0, 9000) == [(2500, 8, 0)]
    assert store.pair(1, {}, 0, 9000) == []
    assert store.pair(3, {1: (0,)}, 0, 9000) == []


def test_the_rounds_of_an_agent_within_a_time(store: SqliteRounds) -> None:
    """From inclusive, to exclusive, oldest first, nobody else's."""
    rows = [row(1, 1000, (1,)), row(2, 2000, (2,)), row(3, 3000, (3,)), row(1, 1500, (4,), agent_no=2)]
    store.write(rows, {(1, "e"): 3, (2, "e"): 1}, 5)

    assert store.between(1, 1000, 3000) == rows[:2]
    assert store.between(1, 1001, 3001) == rows[1:3]
    assert store.between(3, 0, 9999) == []


def test_many_revisions_in_one_read(store: SqliteRounds) -> None:
    """A target list that changed with every round for a day is still one statement."""
    rows = [row(i, i, (i, -1)) for i in range(1, 2001)]
    store.write([row(r.seq, r.started_ms, tuple(r.samples), revision=r.seq) for r in rows], {(1, "e"): len(rows)}, 5)

    assert store.pair(1, {i: (i % 2,) for i in range(1, 2001)}, 0, 9000) == [
        (i, -1 if i % 2 else i, 0) for i in range(1, 2001)
    ]


def test_a_failed_read_is_a_store_error_and_the_next_one_works(tmp_path: Path) -> None:
    """Readers of a file that went away say so; no half-finished statement is handed to the next reader."""
    store = fresh_rounds(tmp_path)
    store.write([row(1, 1000, (1,)), row(2, 2000, (2,))], {(1, "e"): 2}, 5)
    walk = store.since(0)
    assert next(walk).seq == 1
    walk.close()  # type: ignore[attr-defined]
    assert [r.seq for r in store.since(0)] == [1, 2]
    store.close()
    for file in tmp_path.glob("samples.db*"):
        file.unlink()

    with pytest.raises(StoreError, match="unable to open"):
        store.pair(1, {1: (0,)}, 0, 9000)


@pytest.mark.parametrize("damage", ["samples=x'010203'", "samples='three'", "epoch_no=99"])
def test_a_row_that_nobody_wrote_is_a_store_error(store: SqliteRounds, tmp_path: Path, damage: str) -> None:
    """What a damaged file may hold is said with a reason, whatever it is that cannot be made of it."""
    store.write([row(1, 1000, (1,))], {(1, "e"): 1}, 5)
    with closing(sqlite3.connect(tmp_path / "samples.db")) as db, db:
        db.execute("UPDATE rounds SET " + damage)

    with pytest.raises(StoreError, match="damaged"):
        list(store.since(0))
