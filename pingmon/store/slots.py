"""Time cut into slots of one probing interval, so that one bit says whether an agent's round is there.

A slot is `ms // interval_ms`; bits of many slots are one whole number, the first slot in bit 0.
Must not know: agents, databases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HOUR_MS = 3_600_000


def first_slot(at_ms: int, interval_ms: int) -> int:
    """The first slot that begins at `at_ms` or later."""
    return -(-at_ms // interval_ms)


def hour_of(slot: int, interval_ms: int) -> int:
    """The hour (unix ms) in which a slot begins."""
    return slot * interval_ms // HOUR_MS * HOUR_MS


def mask(first: int, last: int) -> int:
    """Bits `first` up to but not including `last`; nothing where that is empty or below 0."""
    first = max(first, 0)
    return ((1 << last - first) - 1) << first if last > first else 0


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """[(first, last + 1)] of each unbroken run of ones, in order."""
    text = f"{bits:b}"[::-1] if bits else ""
    for found in re.finditer("1+", text):
        yield found.span()


def pack(bits: int) -> bytes:
    """As kept in the database: little-endian, no longer than needed."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def unpack(data: bytes) -> int:
    """The other way round."""
    return int.from_bytes(data, "little")


def resampled(bits: int, first_ms: int, old_ms: int, new_ms: int) -> int:
    """Bits of an hour that begins at `first_ms`, from slots of `old_ms` to slots of `new_ms`: a new slot is set where
    any old one in it was."""
    old_first, new_first = first_slot(first_ms, old_ms), first_slot(first_ms, new_ms)
    fresh = 0
    for run_first, run_last in runs(bits):
        begin, end = (old_first + run_first) * old_ms, (old_first + run_last) * old_ms
        fresh |= mask(begin // new_ms - new_first, -(-end // new_ms) - new_first)
    return fresh & mask(0, first_slot(first_ms + HOUR_MS, new_ms) - new_first)
