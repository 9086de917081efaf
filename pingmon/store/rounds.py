"""The sample store (`samples.db`): one packed row per agent and round, written in groups by one writer.

Everything here is raw sqlite3, so it may run in native threads (`run_blocking`): no logging, no ORM. Only the committer
writes; reading opens a connection of its own.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import schema

FLAG_DISTURBED = 1  # the agent itself was late or starved: no evidence against the network
FLAG_LATE = 4  # it came long after it was measured: part of the history, never of the live picture
FLAG_CLOCK = 2  # the agent's clock was so far off that the server's own time stands in `started_ms`
# A deletion of this many rows takes about 10 ms; more would keep the writer from committing reports.
DELETE_BATCH = 2_000
# A round may have started a little after it was received, by clocks that differ: its epoch must outlive it.
EPOCH_SLACK_MS = 3_600_000
# What another file of this folder writes within the same transaction; raises sqlite3.Error.
Also = Callable[[sqlite3.Connection], None]


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


class RoundStore(Protocol):
    """What the services need of a sample store."""

    def write(
        self,
        rounds: Sequence[StoredRound],
        cursors: Mapping[tuple[int, str], int],
        now_ms: int,
        also: Also | None = None,
    ) -> None:
        """Commit rounds and cursors, and what `also` writes, in one transaction; raises StoreError and leaves nothing
        half done."""

    def cursors(self) -> dict[tuple[int, str], int]:
        """(agent_no, epoch) -> highest committed seq, for every epoch still known."""

    def since(self, started_ms: int) -> Iterator[StoredRound]:
        """Rounds that started at `started_ms` or later: agent by agent, each in time order."""

    def drop_before(self, started_ms: int) -> int:
        """Delete up to DELETE_BATCH older rows; returns how many there were."""

    def facts(self) -> StoreFacts:
        """Size and age, for metrics."""

    def check(self) -> None:
        """Raises StoreError where the file cannot be read."""


class StoreError(Exception):
    """The database could not be read or written; nothing was committed."""


@dataclass(frozen=True)
class StoreFacts:
    """`oldest_ms` is None where nothing is stored."""

    size_bytes: int
    oldest_ms: int | None


class SqliteRounds:
    """RoundStore on one SQLite file."""

    def __init__(self, path: Path) -> None:
        engine = schema.open_engine(path)
        schema.upgrade(engine, "samples")
        engine.dispose()
        self._path = path
        # The thread pool hands the writer from thread to thread; only one committer ever uses it at a time.
        self._writer = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        schema.prepare(self._writer)
        self._epoch_nos: dict[tuple[int, str], int] = {
            (agent_no, epoch): no
            for no, agent_no, epoch in self._writer.execute("SELECT no, agent_no, epoch FROM epochs")
        }

    def write(
        self,
        rounds: Sequence[StoredRound],
        cursors: Mapping[tuple[int, str], int],
        now_ms: int,
        also: Also | None = None,
    ) -> None:
        """See RoundStore. A round that is there already is left as it is."""
        try:
            with _transaction(self._writer) as db:
                fresh = self._save_cursors(db, cursors, now_ms)
                numbers = self._epoch_nos | fresh
                db.executemany(
                    "INSERT OR IGNORE INTO rounds VALUES (?,?,?,?,?,?,?,?)",
                    [
                        (r.agent_no, r.started_ms, numbers[r.agent_no, r.epoch], r.seq, r.revision, r.flags,
                         r.received_ms, _pack(r.samples))
                        for r in rounds
                    ],
                )  # fmt: skip
                if also is not None:
                    also(db)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        self._epoch_nos |= fresh

    def _save_cursors(
        self, db: sqlite3.Connection, cursors: Mapping[tuple[int, str], int], now_ms: int
    ) -> dict[tuple[int, str], int]:
        fresh = {}
        for (agent_no, epoch), upto in cursors.items():
            no = self._epoch_nos.get((agent_no, epoch))
            if no is not None:
                db.execute("UPDATE epochs SET upto=?, changed_ms=? WHERE no=?", (upto, now_ms, no))
                continue
            row = db.execute(
                "INSERT INTO epochs (agent_no, epoch, upto, changed_ms) VALUES (?,?,?,?) RETURNING no",
                (agent_no, epoch, upto, now_ms),
            ).fetchone()
            fresh[agent_no, epoch] = int(row[0])
        return fresh

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
                    " JOIN epochs e ON e.no = r.epoch_no WHERE r.agent_no = ? AND started_ms >= ? ORDER BY started_ms",
                    (agent_no, started_ms),
                )
                for epoch, seq, started, revision, flags, received, samples in rows:
                    yield StoredRound(
                        agent_no=agent_no,
                        epoch=epoch,
                        seq=seq,
                        started_ms=started,
                        revision=revision,
                        flags=flags,
                        received_ms=received,
                        samples=_unpack(samples),
                    )

    def drop_before(self, started_ms: int) -> int:
        """See RoundStore. Goes agent by agent: the key begins with the agent, so each deletion is one range.

        Once no round is left to drop, epochs that stood still since then go too.
        """
        try:
            with _transaction(self._writer) as db:
                agents = [row[0] for row in db.execute("SELECT DISTINCT agent_no FROM epochs")]
                dropped = 0
                for agent_no in agents:
                    keys = db.execute(
                        "SELECT agent_no, started_ms, epoch_no, seq FROM rounds"
                        " WHERE agent_no=? AND started_ms<? ORDER BY started_ms LIMIT ?",
                        (agent_no, started_ms, DELETE_BATCH - dropped),
                    ).fetchall()
                    db.executemany(
                        "DELETE FROM rounds WHERE agent_no=? AND started_ms=? AND epoch_no=? AND seq=?", keys
                    )
                    dropped += len(keys)
                if dropped == 0:
                    db.execute("DELETE FROM epochs WHERE changed_ms < ?", (started_ms - EPOCH_SLACK_MS,))
                    self._epoch_nos = {
                        (agent_no, epoch): no
                        for no, agent_no, epoch in db.execute("SELECT no, agent_no, epoch FROM epochs")
                    }
            self._writer.execute("PRAGMA incremental_vacuum(500)").fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        return dropped

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
        self._writer.close()

    def _reader(self) -> _Reader:
        return _Reader(self._path)


class _Reader:
    """A read-only connection for one `with`."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(str(error)) from error


class _transaction:  # noqa: N801 - reads as a word in `with`
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK on any exception, also that of a COMMIT for which there is no room."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            # SQLite may have rolled back by itself, but a transaction left open would refuse every later one.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _pack(samples: array[int]) -> bytes:
    return samples.tobytes() if sys.byteorder == "little" else _swapped(samples).tobytes()


def _unpack(data: bytes) -> array[int]:
    samples = array("i")
    samples.frombytes(data)
    return samples if sys.byteorder == "little" else _swapped(samples)


def _swapped(samples: array[int]) -> array[int]:
    copy = array("i", samples)
    copy.byteswap()
    return copy
