"""The newest rounds of agents in samples.db, as far as one needs them to say when an agent was last heard of.

Each look is one short read on a connection of its own, so it sees what is committed and keeps nobody from committing.
Raw sqlite3, as in rounds.py. Must not know: what follows from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .reads import FLAG_CLOCK, FLAG_LATE, StoreError

# Newest rounds that are looked at: more than one, for a clock that was set back leaves rounds from the future.
ENOUGH = 12


@dataclass(frozen=True)
class Latest:
    """`shown_ms`: when the newest round started, in the server's time; None where none is kept.

    `offset_ms`: by how much the agent's clock is ahead of ours; None where it was never off by a second.
    """

    shown_ms: int | None
    offset_ms: int | None


class LatestRounds:
    """The newest rounds in the samples.db at `path`, which has its tables."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, agents: Iterable[int]) -> dict[int, Latest]:
        """By agent number. Raises StoreError."""
        with self._reading() as db:
            return {agent_no: _latest(db, agent_no) for agent_no in agents}

    def measured_since(self, agents: Iterable[int], began_ms: int, late_ms: float) -> set[int]:
        """The agents of which a round is committed that started at `began_ms` or later, in the server's time.

        A clock that was never measured may say anything. Then it counts that a round came that long after `began_ms`,
        and was not late: such rounds started no more than `late_ms` before they came. Raises StoreError.
        """
        with self._reading() as db:
            return {agent_no for agent_no in agents if _measured_since(db, agent_no, began_ms, late_ms)}

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5)) as db:
                yield db
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


def _offset(db: sqlite3.Connection, agent_no: int) -> int | None:
    query = "SELECT offset_ms FROM clock_offsets WHERE agent_no=? ORDER BY since_ms DESC LIMIT 1"
    row = db.execute(query, (agent_no,)).fetchone()
    return None if row is None else int(row[0])


def _newest(db: sqlite3.Connection, agent_no: int, count: int) -> list[tuple[int, int, int]]:
    """[(started_ms, received_ms, flags)] of rounds that are not compacted, newest first."""
    query = "SELECT started_ms, received_ms, flags FROM rounds WHERE agent_no=? ORDER BY started_ms DESC LIMIT ?"
    return [(int(a), int(b), int(c)) for a, b, c in db.execute(query, (agent_no, count))]


def _latest(db: sqlite3.Connection, agent_no: int) -> Latest:
    offset = _offset(db, agent_no)
    for started_ms, _, flags in _newest(db, agent_no, 1):
        return Latest(_shown(started_ms, flags, offset), offset)
    query = "SELECT last_ms FROM chunks WHERE agent_no=? ORDER BY first_ms DESC LIMIT 1"
    row = db.execute(query, (agent_no,)).fetchone()
    return Latest(None if row is None else _shown(int(row[0]), 0, offset), offset)


def _shown(started_ms: int, flags: int, offset_ms: int | None) -> int:
    return started_ms if flags & FLAG_CLOCK else started_ms - (offset_ms or 0)


def _measured_since(db: sqlite3.Connection, agent_no: int, began_ms: int, late_ms: float) -> bool:
    offset = _offset(db, agent_no)
    return any(
        (not flags & FLAG_CLOCK and min(received_ms, _shown(started_ms, flags, offset)) >= began_ms)
        or (not flags & FLAG_LATE and received_ms >= began_ms + late_ms)
        for started_ms, received_ms, flags in _newest(db, agent_no, ENOUGH)
    )
