"""A chunk: rounds of one agent and target set, transposed and compressed, every bit as it was.

Samples are cut into tiles of some targets and some minutes, so that one pair over a day and all targets at an instant
both read little. In a tile a column's values stand on the smallest RTT that the column has in the chunk; outcome codes
keep numbers of their own below. The bytes of equal weight are laid side by side and deflated with runs and entropy
codes only: what is left is noise, in which looking for repeated strings costs time and finds none.
Must not know: the database, what a sample means.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from operator import sub
from typing import NamedTuple

from .lifting import CODES, MAX, lift, lower
from .packing import checksum, interleaved, pack, unpack, woven
from .tiles import ChunkError, Tile, beside, columns_with_codes, cut_column, cut_rounds, cut_row, inflate, within

TILE_COLUMNS, TILE_ROUNDS = 32, 18
_HEAD = 5
_RAW_DEFLATE = -9  # no header, and the smallest window, for runs look no further back than a byte


class Row(NamedTuple):
    """A round as the table has it: `samples` is packed int32, little-endian."""

    started_ms: int
    epoch_no: int
    seq: int
    flags: int
    received_ms: int
    samples: bytes


class Encoded(NamedTuple):
    """The columns of a chunk's row. `ends`: where each tile ends in `data`, group by group of targets, then the CRC-32
    of each, then that of all else there is to know, for a read checks what it uses; `crc`: of the four blobs."""

    first_ms: int
    last_ms: int
    rounds: int
    width: int
    tile_columns: int
    tile_rounds: int
    heads: bytes
    bases: bytes
    ends: bytes
    data: bytes
    crc: int


def encode(rows: Sequence[Row]) -> Encoded:
    """Rounds of one set, in the order in which they shall come back; all have the same number of samples."""
    width = len(rows[0].samples) // 4
    flat = unpack(b"".join(row.samples for row in rows))
    bases: list[int] = []
    tiles: list[bytes] = []
    for first in range(0, width, TILE_COLUMNS):
        columns = [flat[column::width] for column in range(first, min(first + TILE_COLUMNS, width))]
        lifted = [lift(column, bases) for column in columns]
        tiles += [_tile(lifted, start) for start in range(0, len(rows), TILE_ROUNDS)]
    heads, data, packed = _pack_heads(rows), b"".join(tiles), pack(array("i", bases))
    ends = pack(array("I", [*accumulate(map(len, tiles)), *map(checksum, tiles)]))
    ends += pack(array("I", [_frame_crc((len(rows), width, TILE_COLUMNS, TILE_ROUNDS), heads, packed, ends)]))
    return Encoded(
        first_ms=min(row.started_ms for row in rows),
        last_ms=max(row.started_ms for row in rows),
        rounds=len(rows),
        width=width,
        tile_columns=TILE_COLUMNS,
        tile_rounds=TILE_ROUNDS,
        heads=heads,
        bases=packed,
        ends=ends,
        data=data,
        crc=checksum(heads, packed, ends, data),
    )


def _frame_crc(sizes: Sequence[int], *blobs: bytes) -> int:
    return checksum(pack(array("q", sizes)), *blobs)


def _tile(lifted: Sequence[bytes], start: int) -> bytes:
    """Byte planes, lowest first, each column by column; planes that are all zero at the upper end are left out."""
    begin, end = 4 * start, 4 * (start + TILE_ROUNDS)
    planes = [b"".join([column[begin + weight : end : 4] for column in lifted]) for weight in range(4)]
    while len(planes) > 1 and not planes[-1].strip(b"\0"):
        planes.pop()
    # A block of its own for each plane: their bytes have nothing in common.
    deflate = zlib.compressobj(6, zlib.DEFLATED, _RAW_DEFLATE, 8, zlib.Z_RLE)
    blocks = [deflate.compress(plane) + deflate.flush(zlib.Z_BLOCK) for plane in planes]
    return b"".join(blocks) + deflate.flush()


def _pack_heads(rows: Sequence[Row]) -> bytes:
    """What is known of each round beside its samples: of each number the first one (int64), then all differences to
    the round before (int32 where they fit), in byte planes, deflated."""
    columns = list(zip(*rows, strict=True))[:_HEAD]
    firsts = pack(array("q", [column[0] for column in columns]))
    steps = [step for column in columns for step in map(sub, column[1:], column)]
    small = all(-MAX <= step <= MAX for step in (min(steps, default=0), max(steps, default=0)))
    numbers = array("i" if small else "q", steps)
    data, size = pack(numbers), numbers.itemsize
    return zlib.compress(firsts + b"".join(data[weight::size] for weight in range(size)), 9)


@dataclass(frozen=True)
class Chunk:
    """A chunk to read from; all methods raise ChunkError. `fetch(start, end)` brings these bytes of its data."""

    rounds: int
    width: int
    tile_columns: int
    tile_rounds: int
    heads: bytes
    bases: bytes
    ends: bytes
    fetch: Callable[[int, int], bytes]

    def numbers(self, which: int) -> list[int]:
        """A field of `Row` but the samples, of all rounds in order; `which` is its place in `Row`."""
        firsts, all_steps = self._steps
        count = self.rounds - 1
        steps = all_steps[which * count : (which + 1) * count]
        # Flags and epochs hardly ever change.
        return list(accumulate(steps, initial=firsts[which])) if any(steps) else [firsts[which]] * self.rounds

    @cached_property
    def _steps(self) -> tuple[array[int], array[int]]:
        _ = self._frame  # raises where it is damaged
        data = inflate(self.heads, zlib.MAX_WBITS, 8 * _HEAD * self.rounds)
        count = _HEAD * (self.rounds - 1)
        planes = data[8 * _HEAD :]
        size = len(planes) // count if count else 4
        if len(planes) != size * count or size not in (4, 8):
            raise ChunkError(f"its head of {len(data)} bytes does not tell {self.rounds} rounds")
        numbers = interleaved([planes[i * count : (i + 1) * count] for i in range(size)], count)
        return unpack(data[: 8 * _HEAD], "q"), unpack(numbers, "i" if size == 4 else "q")

    def column(self, position: int, first: int, last: int) -> list[int]:
        """The samples of one target in the rounds from `first` to before `last`."""
        group, inner = divmod(position, self.tile_columns)
        begin, end = first // self.tile_rounds, -(-last // self.tile_rounds)
        values, offset = cut_column(self._tiles(group, begin, end), inner), begin * self.tile_rounds
        return lower(values[first - offset : last - offset], self._bases[position])

    def _few_rows(self, first: int, last: int) -> list[array[int]]:
        """The same, cut out round by round: quicker than column by column where rounds are few and targets many."""
        begin, end = first // self.tile_rounds, -(-last // self.tile_rounds)
        layers = self._layers(begin, end) if last > first else []
        found = []
        for index in range(first, last):
            tile, inner = divmod(index - begin * self.tile_rounds, self.tile_rounds)
            found.append(self._raised(woven([cut_row(layers[tile], inner)])))
        return found

    def _layers(self, begin: int, end: int) -> list[Tile]:
        """Some tiles of all groups, those of the same rounds made one: all targets of few rounds at once."""
        groups = range(-(-self.width // self.tile_columns))
        return [beside(layer) for layer in zip(*(self._tiles(group, begin, end) for group in groups), strict=True)]

    def newest_and_odd(self, first: int, last: int) -> tuple[array[int], dict[int, list[int]]] | None:
        """Of the rounds from `first` to before `last`: the samples of the last one, and all samples of each target that
        has an outcome code among them. None if a target's codes cannot be told from its replies.
        """
        bases = self._bases
        if last <= first or min(bases) < -CODES:
            return None
        begin, end = first // self.tile_rounds, -(-last // self.tile_rounds)
        offset = begin * self.tile_rounds
        parts = list(within(self._layers(begin, end), first - offset, last - offset))
        newest, _, after = parts[-1]
        odd = {i: lower(cut_rounds(parts, i), bases[i]) for i in columns_with_codes(parts, CODES)}
        return self._raised(woven([cut_row(newest, after - 1)])), odd

    def _raised(self, values: array[int]) -> array[int]:
        """A round's numbers, each on the base of its column."""
        bases = self._bases
        if min(bases) < -CODES:
            return array("i", [lower(array("I", [v]), b)[0] for v, b in zip(values, bases, strict=True)])
        return array("i", [v + b if v >= CODES else v - CODES for v, b in zip(values, bases, strict=True)])

    def verify(self) -> None:
        """Unpack everything and keep nothing."""
        self.numbers(0)
        for group in range(-(-self.width // self.tile_columns)):
            self._tiles(group, 0, self._stack)
        _ = self._bases

    def rows(self, first: int, last: int) -> list[array[int]]:
        """The samples of the rounds from `first` to before `last`: each tile is inflated once."""
        if last - first <= self.tile_rounds:
            return self._few_rows(first, last)
        width, begin, end = self.width, first // self.tile_rounds, -(-last // self.tile_rounds)
        low, high = first - begin * self.tile_rounds, last - begin * self.tile_rounds
        flat = array("i", bytes(4 * (last - first) * width))
        for start in range(0, width if last > first else 0, self.tile_columns):
            tiles = self._tiles(start // self.tile_columns, begin, end)
            for position in range(start, min(start + self.tile_columns, width)):
                values = cut_column(tiles, position - start)[low:high]
                flat[position::width] = array("i", lower(values, self._bases[position]))
        return [flat[at : at + width] for at in range(0, len(flat), width)]

    @cached_property
    def _bases(self) -> array[int]:
        return self._all(unpack(self.bases), self.width, "columns")

    @cached_property
    def _bounds(self) -> array[int]:
        """Where each tile begins, and the end of the last one."""
        tiles = self._tile_count
        return self._all(unpack(bytes(4) + self._frame[: 4 * tiles], "I"), tiles + 1, "bounds of tiles")

    @cached_property
    def _sums(self) -> array[int] | None:
        """The checksum of each tile; None in a chunk of before there were any."""
        sums = unpack(self._frame[4 * self._tile_count :], "I")
        return self._all(sums, self._tile_count, "checksums of tiles") if sums else None

    @cached_property
    def _frame(self) -> bytes:
        """`ends` without its last number, which vouches for all but the tiles."""
        sizes, frame = (self.rounds, self.width, self.tile_columns, self.tile_rounds), self.ends[:-4]
        if min(sizes) < 1:
            raise ChunkError(f"it has {self.rounds} rounds of {self.width} samples")
        if len(self.ends) == 4 * self._tile_count:
            return self.ends
        if pack(array("I", [_frame_crc(sizes, self.heads, self.bases, frame)])) != self.ends[-4:]:
            raise ChunkError("the checksum of its frame does not fit")
        return frame

    @property
    def _tile_count(self) -> int:
        return -(-self.width // self.tile_columns) * self._stack

    @staticmethod
    def _all(numbers: array[int], count: int, what: str) -> array[int]:
        if len(numbers) != count:
            raise ChunkError(f"it tells {len(numbers)} {what}, not {count}")
        return numbers

    @property
    def _stack(self) -> int:
        """Tiles per group of columns."""
        return -(-self.rounds // self.tile_rounds)

    def _tiles(self, group: int, begin: int, end: int) -> list[Tile]:
        """(byte planes, samples, rounds) of some tiles of one group, which lie side by side."""
        at = group * self._stack + begin
        bounds, sums = self._bounds[at : at + end - begin + 1], self._sums
        data, start = self.fetch(bounds[0], bounds[-1]), bounds[0]
        span = min(self.tile_columns, self.width - group * self.tile_columns)
        tiles = []
        for index, (low, high) in enumerate(pairwise(bounds), begin):
            height = min(self.tile_rounds, self.rounds - index * self.tile_rounds)
            size, packed = span * height, data[low - start : high - start]
            if sums is not None and checksum(packed) != sums[group * self._stack + index]:
                raise ChunkError(f"the checksum of tile {at + index - begin} does not fit")
            planes = inflate(packed, _RAW_DEFLATE, 4 * size)
            if len(planes) % size or not size <= len(planes) <= 4 * size:
                raise ChunkError(f"a tile of {size} samples has {len(planes)} bytes of planes")
            tiles.append((planes, size, height))
        return tiles
