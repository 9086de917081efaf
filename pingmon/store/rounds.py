"""The sample store (`samples.db`): one packed row per agent and round, written in groups by one writer.

Everything here is raw sqlite3, so it may run in native threads (`run_blocking`): no logging, no ORM. Only the committer
writes; reading (`reads.py`) has connections of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from . import compaction, rolling, schema
from .compaction import Part
from .packing import pack
from .reads import FLAG_CLOCK, FLAG_DISTURBED, FLAG_LATE, Reads, StoredRound, StoreError, StoreFacts
from .rolling import DueHour, RolledHour, Sets
from .rollups import Rollup
from .windows import RoundHead, Window

__all__ = [
    "FLAG_CLOCK",
    "FLAG_DISTURBED",
    "FLAG_LATE",
    "RoundHead",
    "RoundStore",
    "SqliteRounds",
    "StoreError",
    "StoreFacts",
    "StoredRound",
    "Window",
]

# A deletion of this many rows takes about 10 ms; more would keep the writer from committing reports.
DELETE_BATCH = 2_000
DELETE_CHUNKS = 20
# 1,000 pages (4 MB) take about 20 ms. What compaction frees comes to a tenth of a full store and is soon used again.
GIVE_BACK_PAGES = 1_000
SPARE_PAGES, SPARE_PART = 1_000, 0.25
# An epoch must outlive its last round. That may have started a little after it was received, by clocks that differ, and
# goes with the youngest round of its chunk.
EPOCH_SLACK_MS = 2 * 3_600_000
# What another file of this folder writes within the same transaction; raises sqlite3.Error.
Also = Callable[[sqlite3.Connection], None]


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

    def pair(
        self, agent_no: int, columns: Mapping[int, Sequence[int]], from_ms: int, to_ms: int
    ) -> list[tuple[int, int, int]]:
        """[(started_ms, sample, flags)] of one target with `from_ms` <= started_ms < `to_ms`, oldest first.

        `columns`: target-set revision -> positions of the target in the samples of that set.
        """

    def between(self, agent_no: int, from_ms: int, to_ms: int) -> list[StoredRound]:
        """Rounds of one agent with from_ms <= started_ms < to_ms, oldest first."""

    def window(self, agent_no: int, from_ms: int, to_ms: int) -> Window | None:
        """The same for a picture of the moment `to_ms`; None where only `between` can tell."""

    def compactable(self, before_ms: int) -> list[Part]:
        """What there is to compact of rounds that started before then."""

    def compact(self, part: Part) -> int:
        """Turn up to an hour of raw rounds into a chunk, in one transaction; returns how many, 0 when there is no more.

        No read gives another answer for it. Raises StoreError and leaves nothing half done.
        """

    def minutes(self, agent_no: int, target_id: int, from_ms: int, to_ms: int) -> list[Rollup]:
        """Minutes of one pair that begin in [`from_ms`, `to_ms`), oldest first; of hours that are worked out."""

    def hours(self, agent_no: int, target_id: int, from_ms: int, to_ms: int) -> list[Rollup]:
        """The same in hours."""

    def hours_due(self, before_ms: int) -> list[DueHour]:
        """Hours that began before then, with rounds that are in no roll-up yet, oldest first."""

    def work_out(self, due: DueHour, sets: Sets) -> RolledHour:
        """Minutes and the whole of an hour, from all its rounds; `sets`: revision -> target id of each column."""

    def save_rolled(self, rolled: RolledHour) -> None:
        """Commit what was worked out, in the place of what was there. Raises StoreError."""

    def drop_rolled(self, minutes_ms: int, hours_ms: int) -> int:
        """Delete some roll-ups that began before these moments; returns how many rows, 0 when there are no more."""

    def drop_before(self, started_ms: int) -> int:
        """Delete up to DELETE_BATCH older rounds and some chunks that hold no younger one; returns how many rounds."""

    def give_back(self) -> bool:
        """Shrink the file a little where much of it is empty; False if there was nothing to do."""

    def facts(self) -> StoreFacts:
        """Size and age, for metrics."""

    def check(self) -> None:
        """Raises StoreError where the file cannot be read."""


class SqliteRounds(Reads):
    """RoundStore on one SQLite file. Raises SchemaError, StoreError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        engine = schema.open_engine(path)
        schema.upgrade(engine, "samples")
        engine.dispose()
        super().__init__(path)
        # The thread pool hands the writer from thread to thread; only one committer ever uses it at a time.
        self._writer = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        schema.prepare(self._writer)
        try:
            self._epoch_nos = _epoch_numbers(self._writer)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

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
                         r.received_ms, pack(r.samples))
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

    def compactable(self, before_ms: int) -> list[Part]:
        """See RoundStore."""
        with self._reader() as db:
            return compaction.parts(db, before_ms)

    def compact(self, part: Part) -> int:
        """See RoundStore."""
        try:
            with _transaction(self._writer) as db:
                return compaction.compact(db, part)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def save_rolled(self, rolled: RolledHour) -> None:
        """See RoundStore."""
        try:
            with _transaction(self._writer) as db:
                rolling.save(db, rolled)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def drop_rolled(self, minutes_ms: int, hours_ms: int) -> int:
        """See RoundStore."""
        try:
            with _transaction(self._writer) as db:
                return rolling.drop(db, minutes_ms, hours_ms)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def drop_before(self, started_ms: int) -> int:
        """See RoundStore. Once nothing is left to drop, epochs that stood still since then go too."""
        try:
            with _transaction(self._writer) as db:
                dropped = _drop_rounds(db, started_ms) + _drop_chunks(db, started_ms)
                if dropped == 0:
                    db.execute("DELETE FROM epochs WHERE changed_ms < ?", (started_ms - EPOCH_SLACK_MS,))
                    self._epoch_nos = _epoch_numbers(db)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        return dropped

    def give_back(self) -> bool:
        """See RoundStore. Pages that the next hour of raw rounds will need anyway are kept."""
        try:
            free, pages = (
                self._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if free <= max(SPARE_PAGES, pages * SPARE_PART):
                return False
            # A script, because `execute` would stop after the first page.
            self._writer.executescript(f"PRAGMA incremental_vacuum({GIVE_BACK_PAGES})")
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        return True

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        self._writer.close()


def _epoch_numbers(db: sqlite3.Connection) -> dict[tuple[int, str], int]:
    return {(agent_no, epoch): no for no, agent_no, epoch in db.execute("SELECT no, agent_no, epoch FROM epochs")}


def _drop_rounds(db: sqlite3.Connection, started_ms: int) -> int:
    """Goes agent by agent: the key begins with the agent, so each deletion is one range."""
    dropped = 0
    for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs").fetchall():
        keys = db.execute(
            "SELECT agent_no, started_ms, epoch_no, seq FROM rounds"
            " WHERE agent_no=? AND started_ms<? ORDER BY started_ms LIMIT ?",
            (agent_no, started_ms, DELETE_BATCH - dropped),
        ).fetchall()
        db.executemany("DELETE FROM rounds WHERE agent_no=? AND started_ms=? AND epoch_no=? AND seq=?", keys)
        dropped += len(keys)
    return dropped


def _drop_chunks(db: sqlite3.Connection, started_ms: int) -> int:
    gone = db.execute(
        "DELETE FROM chunks WHERE no IN (SELECT no FROM chunks WHERE last_ms<? LIMIT ?) RETURNING rounds",
        (started_ms, DELETE_CHUNKS),
    )
    return sum(rounds for (rounds,) in gone.fetchall())


class _transaction:  # noqa: N801 - reads as a word in `with`
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK on any exception, also that of a COMMIT for which there is no room."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
