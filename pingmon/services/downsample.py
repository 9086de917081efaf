"""Many samples of one pair into few points, honestly: a lost ping stays visible however coarse the step.

`loss` is the share of all probes; `loss_max` that of the worst minute inside, so an outage of a minute is not averaged
away over a day. Round-trip times keep quantiles, not means. What the agent itself spoilt counts apart. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
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
    """The smallest value that at least this share of all does not exceed (nearest rank): one that was measured."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / 1000 if ordered else None


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
    cuts = [bisect_left(ordered, at, key=itemgetter(0)) for at in span.starts()]
    parts = (ordered[low:high] for low, high in pairwise([*cuts, len(ordered)]))
    return [_point(at, part) for at, part in zip(span.starts(), parts, strict=True)]


def _point(at_ms: int, samples: list[Sample]) -> dict[str, Any]:
    values = [value for _, value, _ in samples]
    if len(values) == 1 and values[0] >= 0:
        ms = values[0] / 1000  # a step as short as a round
        counts = (at_ms / 1000, 1, 0, 0, 0.0, 0.0)
        return dict(zip(FIELDS, (*counts, ms, ms, ms, ms, ms), strict=True))
    bucket = Bucket(at_ms)
    if values and min(values) >= 0:
        # As nearly always: all answered, so it does not matter which minute a sample belongs to.
        bucket.replies, bucket.minutes = values, {0: (len(values), 0)}
    else:
        for sample in samples:
            bucket.take(sample)
    return bucket.as_json()
