"""What samples.db keeps beside the rounds, for the question "was it down, or did we not look?".

Which rounds are there (a bit each), why others are not, when the server was up, how far agents' clocks were off.
Writing happens inside the transaction of the rounds (`Also`), so nothing here can say more than what was committed.
Raw sqlite3, as in rounds.py: no logging, no ORM. Must not know: what follows from it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import schema
from .rounds import Also, StoreError
from .slots import HOUR_MS, first_slot, hour_of, pack, resampled, unpack

Span = tuple[int, int]
Offset = tuple[int, int, int]  # agent_no, since_ms, offset_ms
Gap = tuple[int, int, int, str]  # agent_no, from_ms, to_ms, reason
Slot = tuple[int, bool]  # number, whether the round came late


@dataclass(frozen=True)
class Entry:
    """What to write beside the next rounds. `up`: the server is up since up[0] and was so at up[1] (unix ms).

    `slots`: by agent number, of `interval_ms` each.
    """

    interval_ms: int
    up: Span | None = None
    offsets: Sequence[Offset] = ()
    gaps: Sequence[Gap] = ()
    slots: Mapping[int, Sequence[Slot]] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """What is known about some agents in some time: bits from slot `first` on, by agent number."""

    received: dict[int, int]
    late: dict[int, int]
    gaps: list[Gap]
    ups: list[Span]
    since_ms: int | None


class LedgerFile:
    """The ledger's tables in one samples.db, which `SqliteRounds` has opened and upgraded before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    # -- writing --

    def entry(self, entry: Entry) -> Also:
        """The writing of this entry, to be done in a transaction."""

        def write(db: sqlite3.Connection) -> None:
            self._check_file()
            if entry.up is not None:
                db.execute(
                    "INSERT INTO server_up VALUES (?,?) ON CONFLICT (from_ms) DO UPDATE SET to_ms=excluded.to_ms",
                    entry.up,
                )
            db.executemany("INSERT OR REPLACE INTO clock_offsets VALUES (?,?,?)", entry.offsets)
            db.executemany("INSERT OR IGNORE INTO ledger_gaps VALUES (?,?,?,?)", entry.gaps)
            for agent_no, slots in entry.slots.items():
                _mark(db, agent_no, entry.interval_ms, slots)

        return write

    @staticmethod
    def drop_before(ms: int) -> Also:
        """Forget what ended before `ms`; of an agent's clock the newest fact stays."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM server_up WHERE to_ms < ?", (ms,))
            db.execute("DELETE FROM ledger_gaps WHERE to_ms < ?", (ms,))
            db.execute("DELETE FROM ledger_hours WHERE hour_ms < ?", (ms - HOUR_MS,))
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

    # -- reading --

    def ups(self, from_ms: int, to_ms: int) -> list[Span]:
        """When a server was up and could write, as far as it touches this time; in order. Raises StoreError."""
        with self._reading() as db:
            return _ups(db, from_ms, to_ms)

    def offsets(self) -> list[Offset]:
        """All corrections of agents' clocks that are kept. Raises StoreError."""
        with self._reading() as db:
            return [(int(a), int(b), int(c)) for a, b, c in db.execute("SELECT * FROM clock_offsets")]

    def kept(self, agents: Sequence[int], from_ms: int, to_ms: int, interval_ms: int) -> Kept:
        """All that is known of these agents in this time; bit 0 is the first slot that begins there.

        Raises StoreError.
        """
        received: dict[int, int] = {}
        late: dict[int, int] = {}
        gaps: list[Gap] = []
        first = first_slot(from_ms, interval_ms)
        with self._reading() as db:
            for agent_no in agents:
                received[agent_no], late[agent_no] = _bits(db, agent_no, (from_ms, to_ms), interval_ms, first)
                gaps += db.execute(
                    "SELECT * FROM ledger_gaps WHERE agent_no=? AND from_ms < ? AND to_ms > ?",
                    (agent_no, to_ms, from_ms),
                )
            since = db.execute("SELECT min(from_ms) FROM server_up").fetchone()[0]
            return Kept(received, late, gaps, _ups(db, from_ms, to_ms), since)

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


def _ups(db: sqlite3.Connection, from_ms: int, to_ms: int) -> list[Span]:
    query = "SELECT from_ms, to_ms FROM server_up WHERE from_ms < ? AND to_ms >= ? ORDER BY from_ms"
    return [(int(a), int(b)) for a, b in db.execute(query, (to_ms, from_ms))]


def _mark(db: sqlite3.Connection, agent_no: int, interval_ms: int, slots: Sequence[Slot]) -> None:
    hours: dict[int, list[int]] = {}
    for slot, is_late in slots:
        hour_ms = hour_of(slot, interval_ms)
        bits = hours.setdefault(hour_ms, [0, 0])
        bit = 1 << slot - first_slot(hour_ms, interval_ms)
        bits[0] |= bit
        bits[1] |= bit if is_late else 0
    for hour_ms, (came, came_late) in hours.items():
        key = (agent_no, hour_ms)
        row = db.execute(
            "SELECT received, late, interval_ms FROM ledger_hours WHERE agent_no=? AND hour_ms=?", key
        ).fetchone()
        had, had_late = _in_slots_of(interval_ms, hour_ms, row) if row is not None else (0, 0)
        received, late = had | came, had_late | came_late & ~had
        db.execute(
            "INSERT OR REPLACE INTO ledger_hours VALUES (?,?,?,?,?)",
            (agent_no, hour_ms, interval_ms, pack(received), pack(late)),
        )


def _bits(db: sqlite3.Connection, agent_no: int, span: Span, interval_ms: int, first: int) -> tuple[int, int]:
    rows = db.execute(
        "SELECT hour_ms, received, late, interval_ms FROM ledger_hours"
        " WHERE agent_no=? AND hour_ms > ? AND hour_ms < ?",
        (agent_no, span[0] - HOUR_MS, span[1]),
    )
    received = late = 0
    for hour_ms, *row in rows:
        had, had_late = _in_slots_of(interval_ms, hour_ms, row)
        shift = first_slot(hour_ms, interval_ms) - first
        received |= had << shift if shift >= 0 else had >> -shift
        late |= had_late << shift if shift >= 0 else had_late >> -shift
    return received, late


def _in_slots_of(interval_ms: int, hour_ms: int, row: Sequence[object]) -> tuple[int, int]:
    """Both bit fields of a row; one written under another probing interval is brought to this one."""
    received, late, old_ms = row
    assert isinstance(received, bytes) and isinstance(late, bytes) and isinstance(old_ms, int)  # noqa: S101, PT018 - columns
    if old_ms == interval_ms:
        return unpack(received), unpack(late)
    both = [resampled(unpack(bits), hour_ms, old_ms, interval_ms) for bits in (received, late)]
    return both[0], both[1]


def _identity(path: Path) -> tuple[int, int]:
    facts = os.stat(path)  # noqa: PTH116 - 1 us a commit, where Path takes ten
    return facts.st_dev, facts.st_ino
