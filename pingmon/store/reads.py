"""Reading the sample store (`samples.db`): rounds as they were written, one pair over time, one agent at an instant.

Raw sqlite3 on read-only connections, so everything here may run in native threads (`run_blocking`): no logging, no ORM.
Must not know: who writes, what a sample means.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Connections that wait for the next read: opening one reads the schema anew, which costs more than a short read.
SPARE_READERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRound:
    """One row. `samples`: int32 per target of set (`agent_no`, `revision`), RTT in us or an outcome code."""

    agent_no: int
    epoch: str
    seq: int
    started_ms: int
    revision: int
    flags: int
    received_ms: int
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
        """See RoundStore. The key begins with the agent, so all but these rounds stay unread."""
        with self._reader() as db:
            for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs ORDER BY agent_no").fetchall():
                rows = db.execute(
                    "SELECT e.epoch, seq, started_ms, revision, flags, received_ms, samples FROM rounds r"
                    " JOIN epochs e ON e.no = r.epoch_no WHERE r.agent_no = ? AND started_ms >= ?"
                    " ORDER BY started_ms, epoch_no, seq",
                    (agent_no, started_ms),
                )
                for row in rows:
                    yield _stored(agent_no, row)

    def pair(
        self, agent_no: int, columns: Mapping[int, Sequence[int]], from_ms: int, to_ms: int
    ) -> list[tuple[int, int, int]]:
        """See RoundStore. One pass over the agent's rounds, whatever the number of revisions."""
        places = [place for revision, at in columns.items() for place in _places(revision, at)]
        if not places:
            return []
        values = ",".join(["(?,?,?)"] * len(places))
        with self._reader() as db:
            rows = db.execute(
                f"WITH places(revision, nth, first) AS (VALUES {values})"  # noqa: S608 - question marks only
                " SELECT started_ms, substr(samples, first, 4), flags FROM rounds r CROSS JOIN places USING (revision)"
                " WHERE agent_no = ? AND started_ms >= ? AND started_ms < ? ORDER BY started_ms, epoch_no, seq, nth",
                (*(number for place in places for number in place), agent_no, from_ms, to_ms),
            ).fetchall()
        samples = unpack(b"".join(row[1] for row in rows))
        return [(row[0], sample, row[2]) for row, sample in zip(rows, samples, strict=True)]

    def newest_at(self, agent_no: int, at_ms: int, within_ms: int) -> StoredRound | None:
        """See RoundStore."""
        with self._reader() as db:
            row = db.execute(
                "SELECT e.epoch, seq, started_ms, revision, flags, received_ms, samples FROM rounds r"
                " JOIN epochs e ON e.no = r.epoch_no WHERE r.agent_no = ? AND started_ms > ? AND started_ms <= ?"
                " ORDER BY started_ms DESC, epoch_no DESC, seq DESC LIMIT 1",
                (agent_no, at_ms - within_ms, at_ms),
            ).fetchone()
        return None if row is None else _stored(agent_no, row)

    def facts(self) -> StoreFacts:
        """See RoundStore."""
        size = sum(p.stat().st_size for p in self._path.parent.glob(self._path.name + "*"))
        with self._reader() as db:
            oldest = [
                db.execute("SELECT min(started_ms) FROM rounds WHERE agent_no=?", (agent_no,)).fetchone()[0]
                for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs").fetchall()
            ]
        return StoreFacts(size, min((ms for ms in oldest if ms is not None), default=None))

    def check(self) -> None:
        """See RoundStore."""
        with self._reader() as db:
            db.execute("SELECT 1 FROM epochs LIMIT 1").fetchall()

    def close(self) -> None:
        """Let go of the file."""
        while self._spare:
            self._spare.pop().close()

    def _reader(self) -> _Reader:
        return _Reader(self._path, self._spare)


class _Reader:
    """A read-only connection for one `with`: one that is spare, else a new one."""

    def __init__(self, path: Path, spare: list[sqlite3.Connection]) -> None:
        self._spare = spare
        try:
            self._db = spare.pop()
        except IndexError:
            self._db = _connect(path)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        # Whoever left in the middle may have left a statement open, which would keep the log from being checkpointed.
        if kind is None and len(self._spare) < SPARE_READERS:
            self._spare.append(self._db)
        else:
            self._db.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(str(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # Spare connections go from thread to thread; no two have one at once.
        return sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, timeout=5, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def _stored(agent_no: int, row: Sequence[object]) -> StoredRound:
    epoch, seq, started, revision, flags, received, samples = row
    return StoredRound(
        agent_no=agent_no,
        epoch=epoch,  # type: ignore[arg-type]
        seq=seq,  # type: ignore[arg-type]
        started_ms=started,  # type: ignore[arg-type]
        revision=revision,  # type: ignore[arg-type]
        flags=flags,  # type: ignore[arg-type]
        received_ms=received,  # type: ignore[arg-type]
        samples=unpack(samples),  # type: ignore[arg-type]
    )


def _places(revision: int, at: Sequence[int]) -> list[tuple[int, int, int]]:
    """(revision, which of the target's samples, first byte counted from 1) for each of its positions."""
    return [(revision, nth, 4 * position + 1) for nth, position in enumerate(at)]


def pack(samples: array[int]) -> bytes:
    """Samples as they stand in a row: int32, little-endian."""
    return samples.tobytes() if sys.byteorder == "little" else _swapped(samples).tobytes()


def unpack(data: bytes) -> array[int]:
    """The samples of a row."""
    samples = array("i")
    samples.frombytes(data)
    return samples if sys.byteorder == "little" else _swapped(samples)


def _swapped(samples: array[int]) -> array[int]:
    copy = array("i", samples)
    copy.byteswap()
    return copy
