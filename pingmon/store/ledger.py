"""What samples.db keeps beside the rounds, for the question "was it down, or did we not look?".

When the server was up, and how far agents' clocks were off.
Writing happens inside the transaction of the rounds (`Also`), so nothing here can say more than what was committed.
Raw sqlite3, as in rounds.py: no logging, no ORM. Must not know: what follows from it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import schema
from .rounds import Also, StoreError

Span = tuple[int, int]
Offset = tuple[int, int, int]  # agent_no, since_ms, offset_ms


class LedgerFile:
    """The ledger's tables in one samples.db, which `SqliteRounds` has opened and upgraded before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def entry(self, up: Span | None, offsets: Sequence[Offset] = ()) -> Also:
        """What to write beside the next rounds: the server is up since `up[0]` and was so at `up[1]` (unix ms)."""

        def write(db: sqlite3.Connection) -> None:
            self._check_file()
            if up is not None:
                db.execute(
                    "INSERT INTO server_up VALUES (?,?) ON CONFLICT (from_ms) DO UPDATE SET to_ms=excluded.to_ms", up
                )
            db.executemany("INSERT OR REPLACE INTO clock_offsets VALUES (?,?,?)", offsets)

        return write

    def ups(self, from_ms: int, to_ms: int) -> list[Span]:
        """When a server was up and could write, as far as it touches this time; in order. Raises StoreError."""
        with self._reading() as db:
            query = "SELECT from_ms, to_ms FROM server_up WHERE from_ms < ? AND to_ms >= ? ORDER BY from_ms"
            return [(int(a), int(b)) for a, b in db.execute(query, (to_ms, from_ms))]

    def offsets(self) -> list[Offset]:
        """All corrections of agents' clocks that are kept. Raises StoreError."""
        with self._reading() as db:
            return [(int(a), int(b), int(c)) for a, b, c in db.execute("SELECT * FROM clock_offsets")]

    def drop_before(self, ms: int) -> Also:
        """Forget what ended before `ms`; of an agent's clock the newest fact stays."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM server_up WHERE to_ms < ?", (ms,))
            db.execute(
                "DELETE FROM clock_offsets AS o WHERE since_ms < ? AND EXISTS (SELECT 1 FROM clock_offsets n"
                " WHERE n.agent_no = o.agent_no AND n.since_ms > o.since_ms AND n.since_ms < ?)",
                (ms, ms),
            )

        return write

    def _check_file(self) -> None:
        # SQLite goes on writing into a file that was deleted or moved away, and all of it would be lost.
        try:
            same = _identity(self._path) == self._identity
        except OSError:
            same = False
        if not same:
            raise sqlite3.OperationalError("the file was moved or deleted; put it back, or restart the server")
        if schema.lacks_room(self._path):
            raise sqlite3.OperationalError(schema.NO_ROOM)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5)
            try:
                yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


def _identity(path: Path) -> tuple[int, int]:
    facts = os.stat(path)  # noqa: PTH116 - 1 us a commit, where Path takes ten
    return facts.st_dev, facts.st_ino
