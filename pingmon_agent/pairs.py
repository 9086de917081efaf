"""The metrics of each pair (this agent, a target): counters in columns, written out as text when somebody scrapes.

Rounds are worked in many at a time, then each target costs a few loops in C for all of them together; prometheus_client
costs 16 times as much per scrape with thousands of children. Counters live on while a target (by id and name) stays in
the set. Must not know: sockets, HTTP. `observe` runs in the round thread, `render` in any.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from operator import mul, sub

from .wire.contract import Outcome, TargetSet

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_BUCKETS_US = [round(s * 1_000_000) for s in BUCKETS_S]
_WIDTH = len(BUCKETS_S) + 1
_DOWN_AFTER = 3  # lost in a row; one reply brings a target back
_ROUNDS_AT_ONCE = 24
_FADE = 15 / 16  # what is left of the jitter's past with each new difference, as RFC 3550 has it
_LOST = (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED)

_REQUESTS, _RTT = "pingmon_ping_requests_total", "pingmon_ping_rtt_seconds"
PAIR_METRICS = (
    (_REQUESTS, "counter", "Echo requests sent."),
    ("pingmon_ping_lost_total", "counter", "Echo requests that got no valid reply within the timeout."),
    (_RTT, "histogram", "Round-trip time of echo replies received within the timeout."),
    ("pingmon_ping_up", "gauge", "Whether the target is considered reachable from this agent (1 up, 0 down)."),
    ("pingmon_ping_jitter_seconds", "gauge", "Smoothed interarrival jitter of round-trip times, RFC 3550 style."),
    ("pingmon_ping_last_reply_timestamp_seconds", "gauge", "Time of the round in which the last valid reply came."),
)
_HISTOGRAM = (
    "".join(f'{_RTT}_bucket{{%s,le="{bound}"}} %d\n' for bound in (*BUCKETS_S, "+Inf"))
    + f"{_RTT}_sum{{%s}} %.6f\n{_RTT}_count{{%s}} %d\n"
)


class _Columns:
    """What was counted, one place per target in each column; `buckets` has `_WIDTH` places per target."""

    def __init__(self, count: int) -> None:
        self.requests, self.lost, self.in_row = (array("Q", bytes(8 * count)) for _ in range(3))
        self.sums_us, self.last_reply_ms = array("Q", bytes(8 * count)), array("Q", bytes(8 * count))
        self.jitter_us = array("d", bytes(8 * count))
        self.last_us = array("i", [-1]) * count
        self.buckets = array("Q", bytes(8 * count * _WIDTH))

    def move(self, place: int, other: _Columns, there: int) -> None:
        """Take over what `other` has at `there`."""
        for name in ("requests", "lost", "in_row", "sums_us", "last_reply_ms", "jitter_us", "last_us"):
            getattr(self, name)[place] = getattr(other, name)[there]
        begin, from_ = place * _WIDTH, there * _WIDTH
        self.buckets[begin : begin + _WIDTH] = other.buckets[from_ : from_ + _WIDTH]

    def take(self, rounds: list[array[int]], started_ms: list[int]) -> None:
        """Work these rounds in."""
        count = len(rounds)
        weights = [_FADE ** (count - 1 - n) / 16 for n in range(count)]
        fade, end_ms = _FADE**count, started_ms[-1]
        last_us, jitter_us, sums_us, in_row = self.last_us, self.jitter_us, self.sums_us, self.in_row
        requests, last_reply_ms, buckets = self.requests, self.last_reply_ms, self.buckets
        for place, column in enumerate(zip(*rounds, strict=True)):
            low = min(column)
            if low < 0:
                self._one_by_one(place, column, started_ms)
                continue
            requests[place] += count
            sums_us[place] += sum(column)
            before = last_us[place] if last_us[place] >= 0 else column[0]
            differences = map(abs, map(sub, column, (before, *column)))
            jitter_us[place] = jitter_us[place] * fade + sum(map(mul, weights, differences))
            last_us[place], last_reply_ms[place], in_row[place] = column[-1], end_ms, 0
            bucket = bisect_left(_BUCKETS_US, low)
            if bucket == _WIDTH - 1 or max(column) <= _BUCKETS_US[bucket]:
                buckets[place * _WIDTH + bucket] += count
            else:
                for sample in column:
                    buckets[place * _WIDTH + bisect_left(_BUCKETS_US, sample)] += 1

    def _one_by_one(self, place: int, column: tuple[int, ...], started_ms: list[int]) -> None:
        for sample, at_ms in zip(column, started_ms, strict=True):
            if sample >= 0:
                self.requests[place] += 1
                self._reply(place, sample, at_ms)
            elif sample in _LOST:
                self.requests[place] += 1
                self.lost[place] += 1
                self.in_row[place] += 1

    def _reply(self, place: int, rtt_us: int, at_ms: int) -> None:
        self.buckets[place * _WIDTH + bisect_left(_BUCKETS_US, rtt_us)] += 1
        self.sums_us[place] += rtt_us
        self.in_row[place] = 0
        self.last_reply_ms[place] = at_ms
        if self.last_us[place] >= 0:
            self.jitter_us[place] += (abs(rtt_us - self.last_us[place]) - self.jitter_us[place]) / 16
        self.last_us[place] = rtt_us


class Pairs:
    """The columns of all targets in the set in force, and the rounds not worked in yet."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._columns = _Columns(0)
        self._ids: list[int] = []
        self._labels: list[str] = []
        self._shots: list[list[int]] = []
        self._rounds: list[array[int]] = []
        self._started_ms: list[int] = []

    def load(self, targets: TargetSet) -> None:
        """Go on with the pairs of this set; those that left it are forgotten."""
        with self._lock:
            self._work_in()
            known = {key: place for place, key in enumerate(zip(self._ids, self._labels, strict=True))}
            names = _unlike(targets)
            self._ids, self._labels = [t.id for t in targets.targets], [self._label(name) for name in names]
            self._shots = _shots(targets)
            before, self._columns = self._columns, _Columns(len(names))
            for place, key in enumerate(zip(self._ids, self._labels, strict=True)):
                if key in known:
                    self._columns.move(place, before, known[key])

    def observe(self, samples: array[int], started_ms: int) -> None:
        """Count one round of the loaded set. `samples` must not change any more."""
        with self._lock:
            rounds = self._by_shot(samples) if self._shots else [samples]
            self._rounds += rounds
            self._started_ms += [started_ms] * len(rounds)
            if len(self._rounds) >= _ROUNDS_AT_ONCE:
                self._work_in()

    def _by_shot(self, samples: array[int]) -> list[array[int]]:
        """A round in which some targets were probed several times, as rounds in which each was probed once at most."""
        return [array("i", [samples[c] if c >= 0 else Outcome.NOT_PROBED for c in own]) for own in self._shots]

    def render(self) -> str:
        """All pairs in the Prometheus text format, one family after the other."""
        with self._lock:
            self._work_in()
            lines = (self._requests, self._lost, self._histograms, self._up, self._jitter, self._last_reply)
            parts = []
            for (name, kind, help_text), write in zip(PAIR_METRICS, lines, strict=True):
                parts.append(f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n")
                parts += write(name)
            return "".join(parts)

    def _work_in(self) -> None:
        if self._rounds:
            self._columns.take(self._rounds, self._started_ms)
            self._rounds, self._started_ms = [], []

    def _label(self, target: str) -> str:
        return f'source="{_escape(self._source)}",target="{_escape(target)}"'

    # -- writing --

    def _requests(self, name: str) -> Iterator[str]:
        return (f"{name}{{{key}}} {n}\n" for key, n in zip(self._labels, self._columns.requests, strict=True))

    def _lost(self, name: str) -> Iterator[str]:
        return (f"{name}{{{key}}} {n}\n" for key, n in zip(self._labels, self._columns.lost, strict=True))

    def _histograms(self, name: str) -> Iterator[str]:  # noqa: ARG002 - the template has it
        buckets = self._columns.buckets
        for place, (label, total_us) in enumerate(zip(self._labels, self._columns.sums_us, strict=True)):
            counts = list(accumulate(buckets[place * _WIDTH : (place + 1) * _WIDTH]))
            values: list[object] = [label] * (2 * _WIDTH)
            values[1::2] = counts
            yield _HISTOGRAM % (*values, label, total_us / 1_000_000, label, counts[-1])

    def _up(self, name: str) -> Iterator[str]:
        rows = zip(self._labels, self._columns.last_reply_ms, self._columns.in_row, strict=True)
        return (f"{name}{{{key}}} {int(at > 0 and lost < _DOWN_AFTER)}\n" for key, at, lost in rows)

    def _jitter(self, name: str) -> Iterator[str]:
        return (
            f"{name}{{{key}}} {us / 1e6:.6f}\n" for key, us in zip(self._labels, self._columns.jitter_us, strict=True)
        )

    def _last_reply(self, name: str) -> Iterator[str]:
        rows = zip(self._labels, self._columns.last_reply_ms, strict=True)
        return (f"{name}{{{key}}} {ms / 1000:.3f}\n" for key, ms in rows if ms)


def _shots(targets: TargetSet) -> list[list[int]]:
    """Per shot, the column of each target or -1; empty where every target has one column."""
    widths = [target.probe.columns for target in targets.targets]
    if max(widths, default=1) == 1:
        return []
    starts = list(accumulate(widths, initial=0))
    return [
        [start + shot if shot < width else -1 for start, width in zip(starts, widths, strict=False)]
        for shot in range(max(widths))
    ]


def _unlike(targets: TargetSet) -> list[str]:
    """Names for the label, no two alike: two series with the same labels would make Prometheus refuse the whole page.

    Half a character has no UTF-8, and the page would have none either.
    """
    texts = [target.name.encode(errors="replace").decode() for target in targets.targets]
    times = Counter(texts)
    return [
        text if times[text] == 1 and "#" not in text else f"{text}#{target.id}"
        for text, target in zip(texts, targets.targets, strict=True)
    ]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
