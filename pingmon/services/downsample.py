"""Many samples of one pair into few points, honestly: a lost ping stays visible however coarse the step.

`loss` is the share of all probes; `loss_max` that of the worst minute inside, so an outage of a minute is not averaged
away over a day. Round-trip times keep quantiles, not means. What the agent itself spoilt counts apart. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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


def points(samples: Iterable[Sample], span: Span) -> list[dict[str, Any]]:
    """One point per step of the span, also where nothing was measured: a hole must not look like a line."""
    buckets = {at: Bucket(at) for at in span.starts()}
    for sample in samples:
        buckets[sample[0] - sample[0] % span.step_ms].take(sample)
    return [bucket.as_json() for bucket in buckets.values()]
