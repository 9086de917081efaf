"""One tile of a chunk, inflated: some targets by some rounds, in planes of bytes of equal weight, column by column.

Pure; must not know: where tiles lie, what a sample means.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence

from .packing import marked, woven

Tile = tuple[bytes, int, int]  # byte planes, samples, rounds; planes that are all zero at the upper end are left out
Part = tuple[Tile, int, int]  # a tile, and which of its rounds: from, to before
_ZERO = b"\1" + bytes(255)


class ChunkError(Exception):
    """The chunk is damaged: it cannot be what was written."""


def inflate(data: bytes, bits: int, size: int) -> bytes:
    """Raises ChunkError."""
    try:
        return zlib.decompress(data, bits, size)
    except zlib.error as error:
        raise ChunkError(f"it does not inflate ({error})") from error


def beside(tiles: Sequence[Tile]) -> Tile:
    """Tiles of the same rounds and neighbouring columns as one."""
    weights = range(max(len(planes) // size for planes, size, _ in tiles))
    cuts = [planes[w * size : (w + 1) * size] or bytes(size) for w in weights for planes, size, _ in tiles]
    return b"".join(cuts), sum(size for _, size, _ in tiles), tiles[0][2]


def cut_row(tile: Tile, inner: int) -> list[bytes]:
    """The bytes of one round, plane by plane; four planes."""
    planes, size, height = tile
    row = [planes[low + inner : low + size : height] for low in range(0, len(planes), size)]
    return row + [bytes(size // height)] * (4 - len(row))


def cut_column(tiles: Sequence[Tile], inner: int) -> array[int]:
    """The numbers of one column of tiles that lie on each other."""
    cuts = []
    for planes, size, height in tiles:
        at = inner * height
        cuts.append([planes[low + at : low + at + height] or bytes(height) for low in range(0, 4 * size, size)])
    return woven(cuts)


def within(tiles: Sequence[Tile], first: int, last: int) -> Iterator[Part]:
    """What the rounds from `first` to before `last` are of tiles that lie on each other; they count from the first."""
    top = 0
    for tile in tiles:
        height = tile[2]
        if first < top + height and last > top:
            yield tile, max(0, first - top), min(height, last - top)
        top += height


def columns_with_codes(parts: Sequence[Part], codes: int) -> set[int]:
    """Columns that have a number below `codes` in any of these rounds."""
    is_code = b"\1" * codes + bytes(256 - codes)
    found: set[int] = set()
    for (planes, size, height), low, high in parts:
        marks = planes[:size].translate(is_code)
        both = int.from_bytes(marks, "little")
        for plane in range(size, len(planes), size):
            both &= int.from_bytes(planes[plane : plane + size].translate(_ZERO), "little")
        if both:
            found.update(at // height for at in marked(both.to_bytes(size, "little")) if low <= at % height < high)
    return found


def cut_rounds(parts: Sequence[Part], inner: int) -> list[int]:
    """The numbers of one column in a few rounds: quicker than `cut_column` for these."""
    found: list[int] = []
    for (planes, size, height), low, high in parts:
        first, last = inner * height + low, inner * height + high
        numbers = list(planes[first:last])
        for weight in range(1, len(planes) // size):
            upper = planes[weight * size + first : weight * size + last]
            numbers = [number | byte << 8 * weight for number, byte in zip(numbers, upper, strict=True)]
        found += numbers
    return found
