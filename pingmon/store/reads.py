"""Reading the sample store (`samples.db`): rounds as they were written, one pair over time, minutes and hours.

Raw sqlite3 on read-only connections, so everything here may run in native threads (`run_blocking`): no logging, no ORM.
Must not know: who writes, what a sample means.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from . import pairs, rolling, windows
from .compaction import HOUR_MS, Kept, chunks_of
from .packing import unpack
from .rolling import DueHour, RolledHour, Sets
from .rollups import Rollup
from .tiles import ChunkError
from .windows import RoundHead, Window

FLAG_DISTURBED = 1  # the agent itself was late or starved: no evidence against the network
FLAG_CLOCK = 2  # the agent's clock was so far off that the server's own time stands in `started_ms`
FLAG_LATE = 4  # it came long after it was measured: part of the history, never of the live picture
# Connections that wait for the next read: opening one reads the schema anew, which costs more than a short read.
SPARE_READERS = 4
END_OF_TIME = 2**62
_FIELDS = "started_ms, epoch_no, seq, revision, flags, received_ms, samples"
RoundTuple: TypeAlias = "tuple[int, int, int, int, int, int, array[int]]"  # _FIELDS, unpacked


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRound(RoundHead):
    """One row. `samples`: int32 per target of set (`agent_no`, `revision`), RTT in us or an outcome code."""

    samples: array[int]


class StoreError(Exception):
    """The database could not be read or written; nothing was committed."""


@dataclass(frozen=True)
class StoreFacts:
    """`oldest_ms` is None where nothing is stored."""

    size_bytes: int
    oldest_ms: int | None


class Reads:
    """The reading half of a RoundStore, on one SQLite file that has its tables."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spare: list[sqlite3.Connection] = []

    def cursors(self) -> dict[tuple[int, str], int]:
        """See RoundStore."""
        with self._reader() as db:
            return {(a, e): upto for a, e, upto in db.execute("SELECT agent_no, epoch, upto FROM epochs")}

    def since(self, started_ms: int) -> Iterator[StoredRound]:
        """See RoundStore. The keys begin with the agent, so all but these rounds stay unread."""
        with self._reader() as db:
            epochs = dict(db.execute("SELECT no, epoch FROM epochs").fetchall())
            for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs ORDER BY agent_no").fetchall():
                for row in _rounds(db, agent_no, started_ms, END_OF_TIME):
                    yield _stored(agent_no, epochs, row)

    def pair(
        self, agent_no: int, columns: Mapping[int, Sequence[int]], from_ms: int, to_ms: int
    ) -> list[tuple[int, int, int]]:
        """See RoundStore. One pass over the agent's rounds, whatever the number of revisions."""
        with self._reader() as db:
            return pairs.read(db, agent_no, columns, from_ms, to_ms)

    def between(self, agent_no: int, from_ms: int, to_ms: int) -> list[StoredRound]:
        """See RoundStore."""
        if from_ms >= to_ms:
            return []
        with self._reader() as db:
            epochs = dict(db.execute("SELECT no, epoch FROM epochs WHERE agent_no=?", (agent_no,)).fetchall())
            return [_stored(agent_no, epochs, row) for row in _rounds(db, agent_no, from_ms, to_ms)]

    def window(self, agent_no: int, from_ms: int, to_ms: int) -> Window | None:
        """See RoundStore."""
        with self._reader() as db:
            return windows.read(db, agent_no, from_ms, to_ms)

    def minutes(self, agent_no: int, target_id: int, from_ms: int, to_ms: int) -> list[Rollup]:
        """See RoundStore."""
        with self._reader() as db:
            return rolling.read(db, True, agent_no, target_id, from_ms, to_ms)

    def hours(self, agent_no: int, target_id: int, from_ms: int, to_ms: int) -> list[Rollup]:
        """See RoundStore."""
        with self._reader() as db:
            return rolling.read(db, False, agent_no, target_id, from_ms, to_ms)

    def hours_due(self, before_ms: int) -> list[DueHour]:
        """See RoundStore."""
        with self._reader() as db:
            return rolling.due(db, before_ms)

    def work_out(self, due: DueHour, sets: Sets) -> RolledHour:
        """See RoundStore."""
        with self._reader() as db:
            rows = _rounds(db, due.agent_no, due.hour * HOUR_MS, (due.hour + 1) * HOUR_MS)
            return rolling.work_out(due, ((r[0], r[3], bool(r[4] & FLAG_DISTURBED), r[6]) for r in rows), sets)

    def facts(self) -> StoreFacts:
        """See RoundStore."""
        size = sum(p.stat().st_size for p in self._path.parent.glob(self._path.name + "*"))
        with self._reader() as db:
            oldest = [
                db.execute(f"SELECT min({column}) FROM {table} WHERE agent_no=?", (agent_no,)).fetchone()[0]  # noqa: S608
                for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs").fetchall()
                for table, column in (("rounds", "started_ms"), ("chunks", "first_ms"))
            ]
        return StoreFacts(size, min((ms for ms in oldest if ms is not None), default=None))

    def check(self) -> None:
        """See RoundStore. A spare connection would go on reading a file that is gone: this one is new."""
        own: list[sqlite3.Connection] = []
        with _Reader(self._path, own) as db:
            db.execute("SELECT 1 FROM epochs LIMIT 1").fetchall()
        own.pop().close()

    def close(self) -> None:
        """Let go of the file."""
        while self._spare:
            self._spare.pop().close()

    def _reader(self) -> _Reader:
        return _Reader(self._path, self._spare)


# What numbers and blobs that nobody wrote come to: no such epoch, no whole number of samples, NULL, out of range.
_NONSENSE = (LookupError, ValueError, TypeError, ArithmeticError)


class _Reader:
    """A read-only connection for one `with`: one that is spare, else a new one."""

    def __init__(self, path: Path, spare: list[sqlite3.Connection]) -> None:
        self._spare = spare
        try:
            self._db = spare.pop()
        except IndexError:
            self._db = _connect(path)

    def __enter__(self) -> sqlite3.Connection:
        # One picture of both tables: a round that is being compacted is in one of them, never in both or neither.
        self._db.execute("BEGIN")
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        # Whoever left in the middle may have left a statement open, which would keep the log from being checkpointed.
        if kind is None and len(self._spare) < SPARE_READERS:
            self._db.execute("COMMIT")
            self._spare.append(self._db)
        else:
            self._db.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(str(error)) from error
        if isinstance(error, ChunkError):
            raise StoreError(f"a chunk of samples.db is damaged: {error}; `pingmon db check` says which") from error
        if isinstance(error, _NONSENSE):
            raise StoreError(f"a row of samples.db is damaged: {type(error).__name__} {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # Spare connections go from thread to thread; no two have one at once.
        return sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, timeout=5, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def _stored(agent_no: int, epochs: Mapping[int, str], row: RoundTuple) -> StoredRound:
    started, epoch_no, seq, revision, flags, received, samples = row
    return StoredRound(
        agent_no=agent_no,
        epoch=epochs[epoch_no],
        seq=seq,
        started_ms=started,
        revision=revision,
        flags=flags,
        received_ms=received,
        samples=samples,
    )


def _rounds(db: sqlite3.Connection, agent_no: int, since_ms: int, to_ms: int = END_OF_TIME) -> Iterator[RoundTuple]:
    """All rounds of an agent within that time, in order: hour by hour, for that is how far chunks reach."""
    by_hour: dict[int, list[Kept]] = {}
    for kept in chunks_of(db, agent_no, since_ms, to_ms):
        by_hour.setdefault(kept.first_ms // HOUR_MS, []).append(kept)
    at = since_ms
    for hour, found in sorted(by_hour.items()):
        start, end = max(at, hour * HOUR_MS), (hour + 1) * HOUR_MS
        yield from _raw(db, agent_no, at, start)
        rounds = [*_raw(db, agent_no, start, end), *(row for kept in found for row in _unpacked(kept, since_ms, to_ms))]
        yield from sorted((row for row in rounds if since_ms <= row[0] < to_ms), key=lambda row: row[:3])
        at = end
    yield from _raw(db, agent_no, at, to_ms)


def _raw(db: sqlite3.Connection, agent_no: int, from_ms: int, to_ms: int) -> Iterator[RoundTuple]:
    rows = db.execute(
        f"SELECT {_FIELDS} FROM rounds WHERE agent_no=? AND started_ms>=? AND started_ms<?"  # noqa: S608
        " ORDER BY started_ms, epoch_no, seq",
        (agent_no, from_ms, to_ms),
    )
    for *numbers, samples in rows:
        yield (*numbers, unpack(samples))


def _unpacked(kept: Kept, since_ms: int, to_ms: int) -> list[RoundTuple]:
    chunk = kept.chunk
    started = chunk.numbers(0)
    first, last = bisect_left(started, since_ms), bisect_left(started, to_ms)
    heads = [chunk.numbers(which)[first:last] for which in range(5)]
    samples = chunk.rows(first, last)
    kept.close()
    return [(*head[:3], kept.revision, *head[3:], row) for *head, row in zip(*heads, samples, strict=True)]
