"""The account of one agent or pair over some time: expected = received + missing, and each missing round has a reason.

Whole numbers as bit fields, one bit per slot of one probing interval (`store/slots.py`): a day is one number of 17,280
bits, so an account costs a few operations, whatever was sent in which order. Must not know: where the facts come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pingmon.store.slots import first_slot, mask, runs

from .reasons import NotExpected, Reason

Spans = Sequence[tuple[int, int]]  # unix ms


@dataclass(frozen=True)
class Window:
    """Slots of `interval_ms` that lie wholly within some time: `count` of them, the first has number `first`."""

    interval_ms: int
    first: int
    count: int

    @classmethod
    def of(cls, from_ms: int, to_ms: int, interval_ms: int) -> Window:
        """All slots that begin at `from_ms` or later and end by `to_ms`."""
        first = first_slot(from_ms, interval_ms)
        return cls(interval_ms, first, max(0, to_ms // interval_ms - first))

    def touched(self, spans: Spans) -> int:
        """Bits of the slots that any of these spans touches."""
        bits = 0
        for begin, end in spans:
            bits |= mask(self._clip(begin // self.interval_ms), self._clip(first_slot(end, self.interval_ms)))
        return bits

    def inside(self, spans: Spans) -> int:
        """Bits of the slots that lie wholly within one of these spans."""
        bits = 0
        for begin, end in spans:
            bits |= mask(self._clip(first_slot(begin, self.interval_ms)), self._clip(end // self.interval_ms))
        return bits

    def _clip(self, slot: int) -> int:
        return min(max(slot - self.first, 0), self.count)

    @property
    def all(self) -> int:
        """Every slot."""
        return mask(0, self.count)

    def ms(self, place: int) -> int:
        """When the slot at this place begins."""
        return (self.first + place) * self.interval_ms


@dataclass(frozen=True)
class Facts:
    """What is known. `received`, `late`: bits from the window's first slot on. `expected`: spans in which rounds were
    due; of the others `not_expected` says why, the first that fits. `reasons`: spans by reason.
    """

    window: Window
    received: int
    late: int
    expected: Spans
    not_expected: Sequence[tuple[NotExpected, Spans]] = ()
    reasons: dict[Reason, Spans] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """An unbroken run of `rounds` slots without a round (unix ms), all for one reason."""

    from_ms: int
    to_ms: int
    rounds: int
    reason: Reason | NotExpected


@dataclass(frozen=True)
class Totals:
    """Counts of rounds. expected = received + missing; `late` of the received; `reasons` add up to missing."""

    expected: int
    received: int
    late: int
    reasons: dict[Reason, int]

    @property
    def missing(self) -> int:
        """Rounds that are not there."""
        return sum(self.reasons.values())


class Account:
    """The facts brought together."""

    def __init__(self, facts: Facts) -> None:
        self.window = window = facts.window
        self.expected = window.inside(facts.expected)
        self.received = facts.received & self.expected
        self.late = facts.late & self.received
        self.missing = self._by_reason(facts, self.expected & ~self.received)
        self.not_expected = self._by_cause(facts, window.all & ~self.expected & ~facts.received)

    @staticmethod
    def _by_reason(facts: Facts, missing: int) -> dict[Reason, int]:
        parts = {}
        for reason in Reason:
            parts[reason] = missing & facts.window.touched(facts.reasons.get(reason, ()))
            missing &= ~parts[reason]
        # Nobody knows of anything else that kept these rounds away.
        parts[Reason.AGENT_DOWN] |= missing
        return parts

    @staticmethod
    def _by_cause(facts: Facts, rest: int) -> dict[NotExpected, int]:
        parts: dict[NotExpected, int] = {}
        for cause, spans in facts.not_expected:
            parts[cause] = parts.get(cause, 0) | rest & facts.window.touched(spans)
            rest &= ~parts[cause]
        return parts

    def totals(self, from_ms: int | None = None, to_ms: int | None = None) -> Totals:
        """Of the whole time, or of the slots that begin between these moments."""
        window, part = self.window, self.window.all
        if from_ms is not None and to_ms is not None:
            last = first_slot(to_ms, window.interval_ms)
            part = mask(first_slot(from_ms, window.interval_ms) - window.first, last - window.first) & window.all
        return Totals(
            expected=(self.expected & part).bit_count(),
            received=(self.received & part).bit_count(),
            late=(self.late & part).bit_count(),
            reasons={reason: (bits & part).bit_count() for reason, bits in self.missing.items()},
        )

    def gaps(self) -> list[Gap]:
        """All that is missing, in order of time."""
        return sorted(self._runs(self.missing), key=lambda gap: gap.from_ms)

    def pauses(self) -> list[Gap]:
        """When nothing was expected and nothing came, in order of time."""
        return sorted(self._runs(self.not_expected), key=lambda gap: gap.from_ms)

    def _runs(self, parts: dict[Reason, int] | dict[NotExpected, int]) -> Iterator[Gap]:
        for reason, bits in parts.items():
            for first, last in runs(bits):
                yield Gap(self.window.ms(first), self.window.ms(last), last - first, reason)
