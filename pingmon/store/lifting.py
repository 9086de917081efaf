"""A column of samples on its base: small numbers above the smallest RTT it has, and back.

Must not know: chunks, tiles, the database.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from .packing import marked, pack

# Codes -8 to -1 become 0 to 7, the smallest RTT of a column becomes 8.
CODES = 8
MAX = 2**31 - 1
_SIGNS = bytes(128) + b"\1" * 128  # by the most significant byte


def lift(column: array[int], bases: list[int]) -> bytes:
    """A column as packed uint32 above its base, which is appended to `bases`."""
    codes = [(i, column[i]) for i in negative(pack(column))]
    for i, _ in codes:
        column[i] = MAX
    if any(value < -CODES for _, value in codes):
        # No outcome code is this low, but a chunk alters nothing: such a column has no place for codes.
        base = min(value for _, value in codes)
        for i, value in codes:
            column[i] = value
    else:
        base = min(column) - CODES if len(codes) < len(column) else -CODES
        for i, value in codes:
            column[i] = base + value + CODES
    bases.append(base)
    return _less(pack(column), base)


def negative(column: bytes) -> Iterator[int]:
    """Where negative numbers stand in packed int32."""
    return marked(column[3::4].translate(_SIGNS))


def _less(column: bytes, base: int) -> bytes:
    """`base` taken from every number at once: the column as one number of many digits; no digit may fall below 0."""
    ones = int.from_bytes(b"\1\0\0\0" * (len(column) // 4), "little")
    if base < 0:
        # Signed numbers would borrow from their neighbours: first all of them up by 2**31, then one bit turned back.
        column = (int.from_bytes(column, "little") ^ (ones << 31)).to_bytes(len(column), "little")
        base += MAX + 1
    return (int.from_bytes(column, "little") - base * ones).to_bytes(len(column), "little")


def lower(values: Sequence[int], base: int) -> list[int]:
    """The opposite of `lift`."""
    if base < -CODES:
        return [value + base for value in values]
    return [value + base if value >= CODES else value - CODES for value in values]
