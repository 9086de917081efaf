"""Random damage to a file, and what lay where it hit.

Where the blocks of a ring's segment lie is read off the file before it is damaged, by the format alone: the product's
reader, which must find its way in what is left, has no part in it. Must not know: who reads the file afterwards.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD, _FRAME = 16, struct.Struct("=4sII")  # of the file; of a block: magic, length of the body, CRC
_BODY = struct.Struct("=B8s8sQ")  # kind, boot, epoch, seq
_ROUND = 1


@dataclass(frozen=True)
class Hit:
    """What became of a file of `size` bytes: all from `cut` on is gone, the bytes at `flipped` are others."""

    size: int
    cut: int
    flipped: tuple[int, ...]

    def touches(self, begin: int, end: int) -> bool:
        """Whether any byte from `begin` to before `end` is not what it was."""
        return end > self.cut or any(begin <= at < end for at in self.flipped)

    def __str__(self) -> str:
        if self.cut < self.size:
            return f"cut to {self.cut} of {self.size} bytes"
        return f"bytes {', '.join(map(str, self.flipped))} of {self.size} changed"


def hurt(path: Path, rng: random.Random) -> Hit:
    """Change one to four bytes of a file, or cut it off, at random places; every other time one or the other."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        hit = Hit(len(data), rng.randrange(len(data)), ())
        del data[hit.cut :]
    else:
        hit = Hit(len(data), len(data), tuple(sorted(rng.sample(range(len(data)), rng.randint(1, 4)))))
        for at in hit.flipped:
            data[at] ^= rng.randint(1, 255)
    path.write_bytes(data)
    return hit


@dataclass(frozen=True)
class Lain:
    """A block of a segment: its bytes, and which round it is, or of which epoch it tells the state."""

    begin: int
    end: int
    is_round: bool
    epoch: str
    seq: int


def blocks_in(path: Path) -> Iterator[Lain]:
    """All blocks of a segment that is whole."""
    data, at = path.read_bytes(), _HEAD
    while at < len(data):
        _, length, _ = _FRAME.unpack_from(data, at)
        kind, _, epoch, seq = _BODY.unpack_from(data, at + _FRAME.size)
        end = at + _FRAME.size + length
        yield Lain(at, end, kind == _ROUND, epoch.hex(), seq)
        at = end
    assert at == len(data), f"{path} is not whole"
