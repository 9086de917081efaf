"""From raw rounds to chunks and back, in SQL: what can be compacted, one part of it, and all chunks of an agent.

Raw sqlite3, so it may run in native threads (`run_blocking`): no logging, no ORM. The caller's transaction makes a swap
whole. Must not know: when, and who calls.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from .chunks import TILE_ROUNDS, Chunk, Row, encode
from .tiles import ChunkError

HOUR_MS = 3_600_000
# Fewer late rounds than this stay as they are: as a chunk they would hardly be smaller.
MIN_ROUNDS = 6
# One chunk: about 50 ms of the committer's time. Above it an hour becomes several chunks.
MAX_SAMPLES = 400_000
_PART = "agent_no=? AND revision=? AND length(samples)=? AND started_ms>=?"


class Part(NamedTuple):
    """Raw rounds that belong together: `hour` counts from 1970, `width` is the number of samples of each."""

    agent_no: int
    revision: int
    hour: int
    width: int


def parts(db: sqlite3.Connection, before_ms: int) -> list[Part]:
    """What there is to compact of rounds that started earlier, oldest hour first."""
    found: list[Part] = []
    for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs ORDER BY agent_no").fetchall():
        rows = db.execute(
            "SELECT revision, started_ms / ? AS hour, length(samples) / 4 AS width FROM rounds"
            " WHERE agent_no = ? AND started_ms < ? GROUP BY revision, hour, width HAVING count(*) >= ? AND width > 0",
            (HOUR_MS, agent_no, before_ms, MIN_ROUNDS),
        )
        found += [Part(agent_no, *row) for row in rows]
    return sorted(found, key=lambda part: part.hour)


def compact(db: sqlite3.Connection, part: Part) -> int:
    """Turn the oldest raw rounds of a part into one chunk, inside the caller's transaction; returns how many it were.

    0 = what is left of the part stays as it is.
    """
    rows = _oldest(db, part)
    if len(rows) < MIN_ROUNDS:
        return 0
    db.execute(
        "INSERT INTO chunks (agent_no, revision, first_ms, last_ms, rounds, width, tile_columns, tile_rounds, heads,"
        " bases, ends, data, crc) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (part.agent_no, part.revision, *encode(rows)),
    )
    last = rows[-1]
    db.execute(
        f"DELETE FROM rounds WHERE {_PART} AND started_ms<=? AND (started_ms, epoch_no, seq) <= (?,?,?)",  # noqa: S608
        (*_key(part), last.started_ms, last.started_ms, last.epoch_no, last.seq),
    )
    return len(rows)


def _oldest(db: sqlite3.Connection, part: Part) -> list[Row]:
    tiles = max(1, MAX_SAMPLES // part.width // TILE_ROUNDS)
    rows = db.execute(
        f"SELECT started_ms, epoch_no, seq, flags, received_ms, samples FROM rounds WHERE {_PART}"  # noqa: S608
        " AND started_ms<? ORDER BY started_ms, epoch_no, seq LIMIT ?",
        (*_key(part), (part.hour + 1) * HOUR_MS, tiles * TILE_ROUNDS),
    )
    return [Row(*row) for row in rows]


def _key(part: Part) -> tuple[int, int, int, int]:
    return part.agent_no, part.revision, 4 * part.width, part.hour * HOUR_MS


_Columns = tuple[int, int, int, int, bytes, bytes, bytes]  # rounds to ends


class Kept:
    """A chunk with what it belongs to. `close()` it before its connection reads something else."""

    def __init__(self, db: sqlite3.Connection, no: int, revision: int, first_ms: int, columns: _Columns) -> None:
        self.no, self.revision, self.first_ms = no, revision, first_ms
        self._db = db
        self._blob: sqlite3.Blob | None = None
        self.chunk = Chunk(*columns, self._fetch)

    def close(self) -> None:
        """Let go of the data."""
        if self._blob is not None:
            self._blob.close()
        self._blob = None

    def _fetch(self, start: int, end: int) -> bytes:
        """A piece of the data, without reading the rest of it."""
        if self._blob is None:
            self._blob = self._db.blobopen("chunks", "data", self.no, readonly=True)
        if not 0 <= start <= end <= len(self._blob):
            raise ChunkError(f"a tile lies at {start} to {end} of {len(self._blob)} bytes")
        self._blob.seek(start)
        return self._blob.read(end - start)


def chunks_of(db: sqlite3.Connection, agent_no: int, from_ms: int, to_ms: int) -> list[Kept]:
    """Chunks that may hold rounds with `from_ms` <= started_ms < `to_ms`, oldest first; none reaches over an hour."""
    rows = db.execute(
        "SELECT no, revision, first_ms, rounds, width, tile_columns, tile_rounds, heads, bases, ends FROM chunks"
        " WHERE agent_no=? AND first_ms>? AND first_ms<? AND last_ms>=? ORDER BY first_ms, no",
        (agent_no, from_ms - HOUR_MS, to_ms, from_ms),
    )
    return [Kept(db, no, revision, first_ms, tuple(columns)) for no, revision, first_ms, *columns in rows]
