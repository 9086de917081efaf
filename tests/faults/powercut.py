"""What a power cut may take from a SQLite database in WAL mode with synchronous=NORMAL, taken from its files.

The kernel has been told to put the log on the disk when a checkpoint began, and not since: what was written to the log
after that may be there, not there, or there in part. The files are those of a process that was just killed.
Must not know: what the database holds.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path

HEADER, FRAME_HEADER, SECTOR = 32, 24, 512
_MX_FRAME, _SALT, _ATTEMPTED = 16, 32, 128  # places in the shared memory file (SQLite, "WAL-mode file format")


@dataclass(frozen=True)
class Log:
    """How much of a log there is, in bytes from its beginning: surely on the disk up to `safe`, written up to `end`."""

    safe: int
    end: int


def look(database: Path) -> Log:
    """The state of the log beside `database`, out of the log's header and the shared memory."""
    log, shared = _beside(database, "-wal"), _beside(database, "-shm")
    if not log.exists() or not shared.exists() or log.stat().st_size < HEADER:
        return Log(0, 0)
    memory = shared.read_bytes()
    with log.open("rb") as file:
        header = file.read(HEADER)
    page = struct.unpack(">I", header[8:12])[0]
    frames, attempted = (struct.unpack("=I", memory[at : at + 4])[0] for at in (_MX_FRAME, _ATTEMPTED))
    if header[16:24] != memory[_SALT : _SALT + 8]:
        frames = 0  # begun anew in memory only: what the file holds was put on the disk before the last checkpoint
    size = FRAME_HEADER + page
    return Log(HEADER + min(attempted, frames) * size, HEADER + frames * size)


def cut(database: Path, rng: random.Random) -> int:
    """Lose a part of the log, its end from some byte on or some sectors out of it; returns how many bytes."""
    log = look(database)
    shared = _beside(database, "-shm")
    shared.unlink(missing_ok=True)
    if log.end <= log.safe:
        return 0
    file = _beside(database, "-wal")
    if rng.random() < 0.5:
        end = rng.randint(log.safe, log.end)
        with file.open("r+b") as opened:
            opened.truncate(end)
        return log.end - end
    return _drop_sectors(file, log, rng)


def _drop_sectors(file: Path, log: Log, rng: random.Random) -> int:
    sectors = range(-(-log.safe // SECTOR), log.end // SECTOR)
    lost = rng.sample(sectors, min(len(sectors), rng.randint(1, 4)))
    with file.open("r+b") as opened:
        for sector in lost:
            opened.seek(sector * SECTOR)
            opened.write(bytes(SECTOR))
    return len(lost) * SECTOR


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)
