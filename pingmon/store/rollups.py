"""Minutes and hours of one pair: counts, quantiles and a histogram that can be added up. Arithmetic and packing only.

Quantiles are nearest ranks of the replies of that minute or hour, exact to the microsecond; the histogram's bounds are
an eighth of an octave apart. What was lost in a disturbed round is no evidence: it is counted apart.
Must not know: the database, agents.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import NamedTuple

from pingmon_agent.wire.contract import Outcome

from .packing import interleaved, pack, unpack

LOST = (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED)
# In place of a loss in a disturbed round; below all outcome codes.
EXCUSED = -100
NUMBERS = 8


class Cell(NamedTuple):
    """A minute or an hour, packed loosely: `histogram` = pairs of bytes (bucket, count up to 255), ascending."""

    sent: int
    lost: int
    disturbed: int
    low: int
    p50: int
    p95: int
    p99: int
    high: int
    histogram: bytes


@dataclass(frozen=True, slots=True)
class Rollup:
    """One pair from `start_ms` on, for a minute or an hour. `sent` probes, of which `lost` were lost; `disturbed` more
    were lost in disturbed rounds. RTT in us, None without a reply. `histogram`: (bucket, replies), see `bucket_floor`.
    """

    start_ms: int
    sent: int
    lost: int
    disturbed: int
    min_us: int | None
    p50_us: int | None
    p95_us: int | None
    p99_us: int | None
    max_us: int | None
    histogram: tuple[tuple[int, int], ...]


def bucket(us: int) -> int:
    """The bucket of an RTT: 0 to 7 us have one each, from there on each octave has eight; 60 s are in bucket 190."""
    shift = max(us.bit_length() - 4, 0)
    return (shift << 3) + (us >> shift)


def bucket_floor(number: int) -> int:
    """The smallest RTT in a bucket, in us; the next bucket's is the first above it."""
    shift = max((number >> 3) - 1, 0)
    return (number - (shift << 3)) << shift


def merged(rollups: Iterable[Rollup]) -> dict[int, int]:
    """Replies per bucket of several minutes or hours together."""
    total: dict[int, int] = {}
    for number, count in chain.from_iterable(r.histogram for r in rollups):
        total[number] = total.get(number, 0) + count
    return dict(sorted(total.items()))


class _Buckets(dict[int, int]):
    """Buckets of the values met lately: a look-up costs a fifth of the arithmetic."""

    def __missing__(self, us: int) -> int:
        if len(self) > 100_000:
            self.clear()
        self[us] = number = bucket(us)
        return number


_bucket_of = _Buckets().__getitem__


@lru_cache(maxsize=4096)
def ranks(count: int) -> tuple[int, int, int]:
    """Where the 50th, 95th and 99th percentile stand among `count` ordered replies."""
    return (count - 1) // 2, (95 * count + 99) // 100 - 1, (99 * count + 99) // 100 - 1


def cell(samples: Sequence[int]) -> tuple[Cell, list[int]]:
    """(what to keep of these samples, the ordered replies among them)."""
    ordered = sorted(samples)
    lost = disturbed = 0
    if ordered and ordered[0] < 0:
        first = bisect_left(ordered, 0)
        codes, ordered = ordered[:first], ordered[first:]
        lost, disturbed = sum(map(codes.count, LOST)), codes.count(EXCUSED)
    return _cell(ordered, lost, disturbed), ordered


def _cell(replies: list[int], lost: int, disturbed: int) -> Cell:
    count = len(replies)
    if not count:
        return Cell(lost, lost, disturbed, 0, 0, 0, 0, 0, b"")
    p50, p95, p99 = ranks(count)
    buckets = bytes(map(_bucket_of, replies))
    # A minute has few replies in few buckets: most have been met before. An hour's are its own.
    histogram = _remembered(buckets) if count <= 64 else _histogram(buckets)
    return Cell(
        count + lost, lost, disturbed, replies[0], replies[p50], replies[p95], replies[p99], replies[-1], histogram
    )


def _histogram(buckets: bytes) -> bytes:
    pairs = []
    for number in sorted(set(buckets)):
        full, rest = divmod(buckets.count(number), 255)
        pairs += [number, 255] * full + ([number, rest] if rest else [])
    return bytes(pairs)


_remembered = lru_cache(maxsize=16_384)(_histogram)


def hour_of(minutes: Sequence[tuple[Cell, list[int]]]) -> Cell:
    """The cell of all these minutes together, exact: from their replies, not from their cells."""
    replies = sorted(chain.from_iterable(replies for _, replies in minutes))
    return _cell(replies, sum(c.lost for c, _ in minutes), sum(c.disturbed for c, _ in minutes))


def excuse(samples: array[int]) -> array[int]:
    """The samples of a disturbed round."""
    return array("i", [EXCUSED if sample in LOST else sample for sample in samples])


# -- packing: cells of some targets, `slots` each --


def encode(cells: Mapping[int, Mapping[int, Cell]], slots: int) -> bytes:
    """{target id: {slot: cell}} as one blob; slots that are missing stay so."""
    empty = Cell(0, 0, 0, 0, 0, 0, 0, 0, b"")
    ids = sorted(cells)
    rows = [cells[target].get(slot, empty) for target in ids for slot in range(slots)]
    numbers = array("i", ids)
    columns = list(zip(*rows, strict=True)) or [()] * (NUMBERS + 1)
    sent, lost, disturbed, low, p50, p95, p99, high, histograms = columns
    for column in (sent, lost, disturbed, low):
        numbers.extend(column)
    for upper, lower in ((p50, low), (p95, p50), (p99, p95), (high, p99)):
        numbers.extend(a - b for a, b in zip(upper, lower, strict=True))
    lengths = array("H", map(len, histograms))
    planes = pack(numbers)
    body = b"".join(planes[weight::4] for weight in range(4)) + pack(lengths) + b"".join(histograms)
    return zlib.compress(pack(array("i", [len(ids)])) + body, 6)


def decode(blob: bytes, target_id: int, slots: int) -> dict[int, Cell]:
    """The cells of one target, by slot; slots without any sample are left out. Raises zlib.error."""
    data = zlib.decompress(blob)
    (count,) = unpack(data[:4])
    total = count * slots
    size = count + NUMBERS * total
    planes = [data[4 + weight * size : 4 + (weight + 1) * size] for weight in range(4)]
    ids = unpack(interleaved([plane[:count] for plane in planes], count)).tolist()
    if target_id not in ids:
        return {}
    first = ids.index(target_id) * slots
    columns = [
        unpack(interleaved([plane[at : at + slots] for plane in planes], slots))
        for at in range(count + first, size, total)
    ]
    lengths = unpack(data[4 + 4 * size : 4 + 4 * size + 2 * total], "H")
    ends = list(accumulate(lengths[: first + slots], initial=0))
    text = data[4 + 4 * size + 2 * total :]
    found = {}
    for slot, (sent, lost, disturbed, low, *steps) in enumerate(zip(*columns, strict=True)):
        p50, p95, p99, high = list(accumulate(steps, initial=low))[1:]
        if sent or disturbed:
            histogram = text[ends[first + slot] : ends[first + slot + 1]]
            found[slot] = Cell(sent, lost, disturbed, low, p50, p95, p99, high, histogram)
    return found


def verify(blob: bytes, slots: int) -> None:
    """Whether a blob is whole: zlib has a checksum of its own, and its parts must have the lengths they tell. Raises
    zlib.error, ValueError."""
    data = zlib.decompress(blob)
    count = unpack(data[:4])[0] if len(data) >= 4 else -1
    start = 4 + 4 * (count + NUMBERS * count * slots)
    lengths = data[start : start + 2 * count * slots]
    if count < 0 or len(lengths) != 2 * count * slots or len(data) - start - len(lengths) != sum(unpack(lengths, "H")):
        raise ValueError(f"its {len(data)} bytes are not {count} targets of {slots}")


def rollup(start_ms: int, c: Cell) -> Rollup:
    """A cell for the outside."""
    counts: dict[int, int] = {}
    for number, count in zip(c.histogram[::2], c.histogram[1::2], strict=True):
        counts[number] = counts.get(number, 0) + count
    low, p50, p95, p99, high = (value if c.sent > c.lost else None for value in c[3:8])
    return Rollup(start_ms, c.sent, c.lost, c.disturbed, low, p50, p95, p99, high, tuple(counts.items()))
