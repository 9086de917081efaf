"""Reads a directory of segments: what is whole comes back, what is not is counted, what is unknown is set aside.

Must not know: who holds the directory, how segments are written.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from . import segments
from .log import say
from .segments import Block, Contents, Kind

_log = logging.getLogger(__name__)
_ASIDE = ".aside"
_NAME = re.compile(rf"([0-9]{{12}})\.ring({re.escape(_ASIDE)})?")


@dataclass
class Segment:
    """One file. `newest_at`: time of the last block in it, in seconds on the boot's clock."""

    number: int
    path: Path
    size: int
    newest_at: float

    @staticmethod
    def named(directory: Path, number: int) -> Path:
        """The path of a segment."""
        return directory / f"{number:012d}.ring"


@dataclass
class Found:
    """What was in a directory, oldest first: each block, the number of its segment, its time on this boot's clock.

    `continues`: the last epoch in it may go on, as all its numbers are known. `anew`: what was filed before is gone.
    """

    blocks: list[tuple[Block, int, float]] = field(default_factory=list)
    continues: bool = False
    anew: bool = True


@dataclass
class Shelf:
    """The files of a directory: segments by number, and what was set aside. `damaged`: stretches that are no blocks."""

    segments: deque[Segment] = field(default_factory=deque)
    aside: deque[Segment] = field(default_factory=deque)
    found: Found = field(default_factory=Found)
    damaged: int = 0
    set_aside: int = 0

    @property
    def highest(self) -> int:
        """The highest number in use, 0 if none is."""
        return max((segment.number for segment in (*self.segments, *self.aside)), default=0)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(segment.size for segment in (*self.segments, *self.aside))


def load(directory: Path, *, pointer: int, boot: bytes, now: float, wall_ms: int) -> Shelf:
    """Read all there is; raises OSError if the directory itself cannot be used. `pointer`: number of the segment that
    was being written in this boot, -1 if nobody knows."""
    shelf, newest = Shelf(), Contents(damaged=1)
    for path in sorted(directory.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name is not None and name[2]:
            shelf.aside.append(Segment(int(name[1]), path, path.stat().st_size, -math.inf))
        elif name is not None:
            newest = _read(shelf, path, int(name[1]))
    last = shelf.segments[-1].number if shelf.segments else -1
    whole = bool(newest.blocks) and not newest.damaged
    shelf.found.continues = whole and last == pointer
    _date(shelf, boot, now, wall_ms)
    return shelf


def _read(shelf: Shelf, path: Path, number: int) -> Contents:
    try:
        data = path.read_bytes()
        contents = segments.read(data)
    except OSError as err:
        _log.warning(say("a segment of the ring cannot be read", path=path, reason=err.strerror))
        data, contents = b"", Contents(damaged=1)
    shelf.damaged += contents.damaged
    segment = Segment(number, path, len(data), -math.inf)
    if contents.blocks:
        shelf.segments.append(segment)
        shelf.found.blocks += [(block, number, 0.0) for block in contents.blocks]
        return contents
    why = "it holds nothing that can be read" if contents.known else "another version of the agent wrote it"
    _log.warning(say("a segment of the ring is set aside", path=path, reason=why))
    shelf.set_aside += 1
    segment.path = path.rename(path.with_name(path.name + _ASIDE))
    shelf.aside.append(segment)
    return contents


def _date(shelf: Shelf, boot: bytes, now: float, wall_ms: int) -> None:
    """Say all times on this boot's clock. Rounds of another boot have nothing but the wall clock to go by."""
    blocks, ceiling = shelf.found.blocks, now
    by_number = {segment.number: segment for segment in shelf.segments}
    for place in range(len(blocks) - 1, -1, -1):
        block, number, _ = blocks[place]
        at = block.at
        if block.boot != boot:
            at = now - max(0, wall_ms - block.time_ms) / 1000 if block.kind is Kind.ROUND else ceiling
        ceiling = min(at, ceiling)  # what comes before it is no younger
        blocks[place] = block, number, ceiling
        by_number[number].newest_at = max(by_number[number].newest_at, ceiling)
