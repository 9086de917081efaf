"""The metrics of each pair (this agent, a target): counters in columns, written out as text when somebody scrapes.

prometheus_client costs 16 times as much per scrape with thousands of children. Counters live on while a target (by id
and name) stays in the set. Must not know: sockets, HTTP. `observe` runs in the round thread, `render` in any.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .wire.contract import Outcome, TargetSet

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_BUCKETS_US = [round(s * 1_000_000) for s in BUCKETS_S]
_DOWN_AFTER = 3  # lost in a row; one reply brings a target back

PAIR_METRICS = (
    ("pingmon_ping_requests_total", "counter", "Echo requests sent."),
    ("pingmon_ping_lost_total", "counter", "Echo requests that got no valid reply within the timeout."),
    ("pingmon_ping_rtt_seconds", "histogram", "Round-trip time of echo replies received within the timeout."),
    ("pingmon_ping_up", "gauge", "Whether the target is considered reachable from this agent (1 up, 0 down)."),
    ("pingmon_ping_jitter_seconds", "gauge", "Smoothed interarrival jitter of round-trip times, RFC 3550 style."),
    ("pingmon_ping_last_reply_timestamp_seconds", "gauge", "Time of the round in which the last valid reply came."),
)


@dataclass(slots=True)
class _Pair:
    """One target's history since it came into the set."""

    labels: str
    buckets: array[int] = field(default_factory=lambda: array("q", bytes(8 * (len(BUCKETS_S) + 1))))
    requests: int = 0
    lost: int = 0
    lost_in_row: int = 0
    sum_us: int = 0
    last_us: int = -1
    jitter_us: float = 0.0
    last_reply_ms: int = 0

    def reply(self, rtt_us: int, at_ms: int) -> None:
        self.buckets[bisect_left(_BUCKETS_US, rtt_us)] += 1
        self.sum_us += rtt_us
        self.lost_in_row = 0
        self.last_reply_ms = at_ms
        if self.last_us >= 0:
            self.jitter_us += (abs(rtt_us - self.last_us) - self.jitter_us) / 16
        self.last_us = rtt_us


class Pairs:
    """The columns of all targets in the set in force."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._pairs: dict[tuple[int, str], _Pair] = {}
        self._order: list[_Pair] = []

    def load(self, targets: TargetSet) -> None:
        """Go on with the pairs of this set; those that left it are forgotten."""
        with self._lock:
            known = self._pairs
            self._pairs = {}
            times = Counter(target.name for target in targets.targets)
            for target in targets.targets:
                # Two series with the same labels would make Prometheus refuse the whole page.
                label = target.name if times[target.name] == 1 else f"{target.name}#{target.id}"
                key = (target.id, label)
                self._pairs[key] = known.get(key) or _Pair(self._labels(label))
            self._order = list(self._pairs.values())

    def observe(self, samples: array[int], started_ms: int) -> None:
        """Count one round of the loaded set."""
        with self._lock:
            for pair, sample in zip(self._order, samples, strict=True):
                if sample >= 0:
                    pair.requests += 1
                    pair.reply(sample, started_ms)
                elif sample in (Outcome.TIMEOUT, Outcome.UNREACHABLE):
                    pair.requests += 1
                    pair.lost += 1
                    pair.lost_in_row += 1

    def render(self) -> str:
        """All pairs in the Prometheus text format, one family after the other."""
        with self._lock:
            return "".join(self._lines())

    def _labels(self, target: str) -> str:
        return f'source="{_escape(self._source)}",target="{_escape(target)}"'

    def _lines(self) -> Iterator[str]:
        for name, kind, help_text in PAIR_METRICS:
            yield f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
            write = _WRITERS[name]
            for pair in self._order:
                yield from write(name, pair)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(name: str, pair: _Pair) -> Iterator[str]:
    total = 0
    for bound, count in zip(BUCKETS_S, pair.buckets, strict=False):
        total += count
        yield f'{name}_bucket{{{pair.labels},le="{bound}"}} {total}\n'
    total += pair.buckets[-1]
    yield f'{name}_bucket{{{pair.labels},le="+Inf"}} {total}\n'
    yield f"{name}_sum{{{pair.labels}}} {pair.sum_us / 1_000_000:.6f}\n{name}_count{{{pair.labels}}} {total}\n"


def _up(name: str, pair: _Pair) -> Iterator[str]:
    up = pair.last_reply_ms > 0 and pair.lost_in_row < _DOWN_AFTER
    yield f"{name}{{{pair.labels}}} {int(up)}\n"


def _jitter(name: str, pair: _Pair) -> Iterator[str]:
    yield f"{name}{{{pair.labels}}} {pair.jitter_us / 1_000_000:.6f}\n"


def _last_reply(name: str, pair: _Pair) -> Iterator[str]:
    if pair.last_reply_ms:
        yield f"{name}{{{pair.labels}}} {pair.last_reply_ms / 1000:.3f}\n"


def _requests(name: str, pair: _Pair) -> Iterator[str]:
    yield f"{name}{{{pair.labels}}} {pair.requests}\n"


def _lost(name: str, pair: _Pair) -> Iterator[str]:
    yield f"{name}{{{pair.labels}}} {pair.lost}\n"


_WRITERS = dict(
    zip((m[0] for m in PAIR_METRICS), (_requests, _lost, _histogram, _up, _jitter, _last_reply), strict=True)
)
