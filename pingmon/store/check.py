"""`pingmon db check`: whether both databases are sound in themselves and with each other. Changes nothing.

Raw sqlite3 on read-only connections, so a running server does not mind. A server that starts looks at the small one.
Must not know: services.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from .chunks import Chunk
from .packing import checksum
from .rolling import MINUTES, SHELF
from .rollups import verify
from .tiles import ChunkError

DIRECTORY, SAMPLES = "pingmon.db", "samples.db"
# One broken page makes thousands of lines that say the same.
MAX_LINES = 20
_CHUNK = "no, revision, width, crc, rounds, tile_columns, tile_rounds, heads, bases, ends, data"
Ids = list[tuple[int, int]]  # (epoch number, seq) of each round


@dataclass
class Findings:
    """What there is, and what is wrong with it: one sentence each, the first few of them."""

    agents: int = 0
    raw_rounds: int = 0
    chunks: int = 0
    compacted_rounds: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)


class DamageError(Exception):
    """A database is damaged; the text says what to do."""


MEND = "`pingmon db check` says more, `pingmon restore FILE` puts a backup in its place"


def refuse_damage(data_dir: Path) -> None:
    """Raises DamageError where SQLite finds pingmon.db damaged, for all decisions rest on it.

    samples.db is looked at where it is read: to read all of a full one would keep a server from starting for a minute.
    """
    path = data_dir / DIRECTORY
    if not path.exists() or not path.stat().st_size:
        return
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
        problems = integrity(db, DIRECTORY)
    if problems:
        raise DamageError(f"{data_dir}/{problems[0]}; {MEND}")


def check(data_dir: Path) -> Findings:
    """Look at everything. Raises sqlite3.Error where a file cannot even be opened."""
    found = Findings()
    # The samples first: what their rounds refer to is in a directory that is looked at later.
    with closing(reader(data_dir / SAMPLES)) as samples, closing(reader(data_dir / DIRECTORY)) as directory:
        for db, name in ((samples, SAMPLES), (directory, DIRECTORY)):
            # Only now does the picture of this file stand still.
            db.execute("BEGIN")
            found.problems += integrity(db, name)
        if not found.problems:
            _look(samples, directory, found)
    return found


def reader(path: Path) -> sqlite3.Connection:
    """A connection that can change nothing and makes no file. Raises sqlite3.Error."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5, isolation_level=None)


def integrity(db: sqlite3.Connection, name: str) -> list[str]:
    """What SQLite itself finds wrong with a file."""
    try:
        lines = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({MAX_LINES})")]
    except sqlite3.DatabaseError as error:
        lines = [str(error)]
    # Where the schema itself is damaged, its text comes along, line by line.
    return [f"{name} is damaged: {' '.join(line.split())}" for line in lines if line != "ok"]


def _look(samples: sqlite3.Connection, directory: sqlite3.Connection, found: Findings) -> None:
    widths = {
        (agent_no, revision): size // 4
        for agent_no, revision, size in directory.execute(
            "SELECT agent_no, revision, length(target_ids) FROM target_sets"
        )
    }
    epochs = samples.execute("SELECT no, agent_no, epoch, upto FROM epochs ORDER BY no").fetchall()
    upto = {no: reached for no, _, _, reached in epochs}
    names = {no: f"epoch {epoch} of agent {agent_no}" for no, agent_no, epoch, _ in epochs}
    found.agents = directory.execute("SELECT count(*) FROM agents WHERE deleted_ms IS NULL").fetchone()[0]
    agents = {row[0] for table in ("rounds", "chunks", "epochs") for row in _agents(samples, table)}
    for agent_no in sorted(agents):
        ids: Ids = []
        problems = [*_raw(samples, agent_no, widths, ids, found), *_chunks(samples, agent_no, widths, ids, found)]
        problems += _numbers(agent_no, ids, upto, names)
        found.problems += problems[: MAX_LINES - len(found.problems)]
    found.problems += list(_rolled(samples))[: MAX_LINES - len(found.problems)]


def _rolled(samples: sqlite3.Connection) -> Iterator[str]:
    for table, what, slots in (("minute_rollups", "minutes", MINUTES), ("hour_rollups", "hours", 1)):
        rows = samples.execute(f"SELECT agent_no, shelf, hour, data FROM {table}")  # noqa: S608 - our own names
        for agent_no, shelf, hour, data in rows:
            try:
                verify(data, slots)
            except (zlib.error, ValueError) as error:
                yield f"{what} of agent {agent_no}, targets from id {shelf * SHELF}, hour {hour} are damaged: {error}"


def _agents(samples: sqlite3.Connection, table: str) -> list[tuple[int]]:
    return samples.execute(f"SELECT DISTINCT agent_no FROM {table}").fetchall()  # noqa: S608 - our own names


def _raw(
    samples: sqlite3.Connection, agent_no: int, widths: dict[tuple[int, int], int], ids: Ids, found: Findings
) -> Iterator[str]:
    rows = samples.execute(
        "SELECT revision, length(samples) / 4, epoch_no, seq FROM rounds WHERE agent_no=?", (agent_no,)
    ).fetchall()
    ids += [(epoch_no, seq) for _, _, epoch_no, seq in rows]
    found.raw_rounds += len(rows)
    found.samples += sum(width for _, width, _, _ in rows)
    for revision, width in sorted({row[:2] for row in rows}):
        yield from _fits("rounds", agent_no, revision, width, widths)


def _chunks(
    samples: sqlite3.Connection, agent_no: int, widths: dict[tuple[int, int], int], ids: Ids, found: Findings
) -> Iterator[str]:
    rows = samples.execute(f"SELECT {_CHUNK} FROM chunks WHERE agent_no=? ORDER BY no", (agent_no,))  # noqa: S608
    for no, revision, width, crc, rounds, *columns in rows:
        found.chunks += 1
        found.compacted_rounds += rounds
        found.samples += rounds * width
        yield from _fits(f"chunk {no}", agent_no, revision, width, widths)
        try:
            ids += _unpacked(rounds, width, crc, *columns)
        except ChunkError as error:
            yield f"chunk {no} of agent {agent_no} cannot be read: {error}; its {rounds} rounds are lost"


def _unpacked(
    rounds: int, width: int, crc: int, columns: int, height: int, heads: bytes, bases: bytes, ends: bytes, data: bytes
) -> Ids:
    """The rounds of a chunk whose every sample could be read. Raises ChunkError."""
    if checksum(heads, bases, ends, data) != crc:
        raise ChunkError("its checksum does not fit")
    chunk = Chunk(rounds, width, columns, height, heads, bases, ends, lambda start, end: data[start:end])
    chunk.verify()
    return list(zip(chunk.numbers(1), chunk.numbers(2), strict=True))


def _fits(what: str, agent_no: int, revision: int, width: int, widths: dict[tuple[int, int], int]) -> Iterator[str]:
    known = widths.get((agent_no, revision))
    if known is None:
        yield f"{what} of agent {agent_no}: pingmon.db does not have their target set {revision}"
    elif known != width:
        yield f"{what} of agent {agent_no}: {width} samples a round, but target set {revision} has {known} columns"


def _numbers(agent_no: int, ids: Ids, upto: dict[int, int], names: dict[int, str]) -> Iterator[str]:
    """No round twice, none without its epoch, none beyond what was acknowledged."""
    twice = len(ids) - len(set(ids))
    if twice:
        yield f"{twice} rounds of agent {agent_no} are stored twice"
    newest: dict[int, int] = {}
    for epoch_no, seq in ids:
        newest[epoch_no] = max(seq, newest.get(epoch_no, 0))
    for epoch_no, seq in sorted(newest.items()):
        if epoch_no not in upto:
            yield f"rounds of agent {agent_no} belong to epoch number {epoch_no}, which samples.db does not have"
        elif seq > upto[epoch_no]:
            yield f"{names[epoch_no]} has round {seq}, but its cursor stands at {upto[epoch_no]}"
