"""Numbers as they lie in samples.db: little-endian, whatever the machine.

Must not know: what the numbers mean.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence


def pack(numbers: array[int]) -> bytes:
    """Numbers as they stand in the file: little-endian."""
    return numbers.tobytes() if sys.byteorder == "little" else _swapped(numbers).tobytes()


def unpack(data: bytes, typecode: str = "i") -> array[int]:
    """The numbers of a blob; int32 where nothing else is said."""
    numbers: array[int] = array(typecode)
    numbers.frombytes(data)
    return numbers if sys.byteorder == "little" else _swapped(numbers)


def _swapped(numbers: array[int]) -> array[int]:
    copy = array(numbers.typecode, numbers)
    copy.byteswap()
    return copy


def interleaved(planes: Sequence[bytes], count: int) -> bytes:
    """`count` numbers from planes of their bytes, lowest weight first."""
    data = bytearray(len(planes) * count)
    for weight, plane in enumerate(planes):
        data[weight :: len(planes)] = plane
    return bytes(data)


def checksum(*blobs: bytes) -> int:
    """CRC-32 over several blobs."""
    crc = 0
    for blob in blobs:
        crc = zlib.crc32(blob, crc)
    return crc


def woven(cuts: Sequence[Sequence[bytes]]) -> array[int]:
    """Numbers whose bytes of each weight lie in pieces: one list of four pieces after the other."""
    planes = [b"".join(pieces) for pieces in zip(*cuts, strict=True)]
    return unpack(interleaved(planes, len(planes[0])) if planes else b"", "I")


def marked(flags: bytes) -> Iterator[int]:
    """Where ones stand among zeros."""
    at = flags.find(1)
    while at >= 0:
        yield at
        at = flags.find(1, at + 1)
