"""Many samples of one pair into few points, honestly: a lost ping stays visible however coarse the step.

`loss` is the share of all probes; `loss_max` that of the worst minute inside, so an outage of a minute is not averaged
away over a day. Round-trip times keep quantiles, not means. What the agent itself spoilt counts apart. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any

from pingmon.store.rollups import Rollup, bucket_floor, merged
from pingmon.store.rounds import FLAG_DISTURBED
from pingmon_agent.wire.contract import Outcome

from .timespan import Span

MINUTE_MS = 60_000
LOST = frozenset((Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED))
FIELDS = ("timestamp", "sent", "lost", "errors", "loss", "loss_max", "min_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")

Sample = tuple[int, int, int]


@dataclass
class Bucket:
    """One step: replies in us, and what else became of the probes.

    `errors`: not sent, or lost while the agent's own host was disturbed.
    """

    at_ms: int
    replies: list[int] = field(default_factory=list)
    minutes: dict[int, tuple[int, int]] = field(default_factory=dict)  # minute -> (sent, lost)
    errors: int = 0

    def take(self, sample: Sample) -> None:
        """Work in (started_ms, RTT or outcome, flags)."""
        started_ms, value, flags = sample
        if value >= 0:
            self.replies.append(value)
            self._count(started_ms, lost=0)
        elif value == Outcome.NOT_PROBED:
            return
        elif value in LOST and not flags & FLAG_DISTURBED:
            self._count(started_ms, lost=1)
        else:
            self.errors += 1

    def _count(self, started_ms: int, lost: int) -> None:
        minute = started_ms // MINUTE_MS
        sent_before, lost_before = self.minutes.get(minute, (0, 0))
        self.minutes[minute] = (sent_before + 1, lost_before + lost)

    def as_json(self) -> dict[str, Any]:
        """With the keys of FIELDS; null where nothing was sent, or nothing came back."""
        replies = sorted(self.replies)
        sent = sum(n for n, _ in self.minutes.values())
        lost = sent - len(replies)
        return {
            "timestamp": self.at_ms / 1000,
            "sent": sent,
            "lost": lost,
            "errors": self.errors,
            "loss": round(lost / sent, 4) if sent else None,
            "loss_max": round(max(gone / n for n, gone in self.minutes.values()), 4) if sent else None,
            "min_ms": _ms(replies, 0),
            "p50_ms": _ms(replies, 0.5),
            "p95_ms": _ms(replies, 0.95),
            "p99_ms": _ms(replies, 0.99),
            "max_ms": _ms(replies, 1),
        }


def _ms(ordered: list[int], share: float) -> float | None:
    return ordered[_rank(share, len(ordered))] / 1000 if ordered else None


def _rank(share: float, count: int) -> int:
    """Where in ascending order the smallest value stands that at least this share of all does not exceed (nearest
    rank): one that was measured."""
    return max(0, math.ceil(share * count) - 1)


@lru_cache(maxsize=10_000)
def _ranks(count: int) -> tuple[int, int, int]:
    """Of p50, p95 and p99."""
    return _rank(0.5, count), _rank(0.95, count), _rank(0.99, count)


def points_of_rollups(rollups: Iterable[Rollup], span: Span) -> list[dict[str, Any]]:
    """The same from minutes or hours. `loss_max` is that of the worst of them. The quantiles of a step that holds one
    of them are exact; those of several together come from their histograms, up to an eighth of an octave low.
    """
    found: dict[int, list[Rollup]] = {at: [] for at in span.starts()}
    for rollup in rollups:
        found[rollup.start_ms - rollup.start_ms % span.step_ms].append(rollup)
    return [_together(at, rolled) for at, rolled in found.items()]


def _together(at_ms: int, rolled: list[Rollup]) -> dict[str, Any]:
    sent, lost = sum(r.sent for r in rolled), sum(r.lost for r in rolled)
    replied = [r for r in rolled if r.min_us is not None and r.max_us is not None]
    low = min((r.min_us for r in replied if r.min_us is not None), default=None)
    high = max((r.max_us for r in replied if r.max_us is not None), default=None)
    if len(replied) == 1:
        quantiles = [replied[0].p50_us, replied[0].p95_us, replied[0].p99_us]
    else:
        histogram = merged(replied)
        quantiles = [_quantile(histogram, share, low or 0) for share in (0.5, 0.95, 0.99)]
    numbers = [None if us is None else us / 1000 for us in (low, *quantiles, high)]
    losses = [r.lost / r.sent for r in rolled if r.sent]
    return {
        "timestamp": at_ms / 1000,
        "sent": sent,
        "lost": lost,
        "errors": sum(r.disturbed for r in rolled),
        "loss": round(lost / sent, 4) if sent else None,
        "loss_max": round(max(losses), 4) if losses else None,
        **dict(zip(FIELDS[6:], numbers, strict=True)),
    }


def _quantile(histogram: dict[int, int], share: float, low: int) -> int | None:
    """The floor of the bucket in which that rank lies, but no less than the smallest reply."""
    rank = math.ceil(share * sum(histogram.values()))
    for number, count in histogram.items():
        rank -= count
        if rank <= 0:
            return max(low, bucket_floor(number))
    return None


def points(samples: Iterable[Sample], span: Span) -> list[dict[str, Any]]:
    """One point per step of the span, also where nothing was measured: a hole must not look like a line."""
    ordered = sorted(samples, key=itemgetter(0))
    times, values = [row[0] for row in ordered], [row[1] for row in ordered]
    starts = span.starts()
    cuts = [bisect_left(times, at) for at in starts]
    found = []
    for at_ms, low, high in zip(starts, cuts, [*cuts[1:], len(times)], strict=True):
        replies = values[low:high] if high - low == 1 else sorted(values[low:high])
        if replies and replies[0] >= 0:
            found.append(_answered(at_ms, replies))
        else:
            found.append(_mixed(at_ms, ordered[low:high]))
    return found


def _answered(at_ms: int, replies: Sequence[int]) -> dict[str, Any]:
    """The point of a step in which every probe was answered, as nearly always: so it is made without a detour."""
    sent = len(replies)
    low = p50 = p95 = p99 = high = replies[0] / 1000
    if sent > 1:
        half, most, nearly = _ranks(sent)
        p50, p95, p99, high = replies[half] / 1000, replies[most] / 1000, replies[nearly] / 1000, replies[-1] / 1000
    return {
        "timestamp": at_ms / 1000,
        "sent": sent,
        "lost": 0,
        "errors": 0,
        "loss": 0.0,
        "loss_max": 0.0,
        "min_ms": low,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": high,
    }


def _mixed(at_ms: int, samples: Sequence[Sample]) -> dict[str, Any]:
    bucket = Bucket(at_ms)
    for sample in samples:
        bucket.take(sample)
    return bucket.as_json()
