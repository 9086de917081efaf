"""What a probing engine is asked and what it answers: the seam behind which engines can be exchanged.

Must not know: how probes are sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One round: an address (or None: unresolved) per target, in the order of the set."""

    addresses: Sequence[str | None]
    window_s: float
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The outcome of a round: one int32 per target, RTT in us or an Outcome."""

    samples: array[int]
    started_ms: int
    disturbed: bool


@dataclass
class Tally:
    """Since the start: what was seen beside the results. Read by the metrics."""

    sent: int = 0
    duplicates: int = 0
    late: int = 0
    foreign: int = 0
    overflow: int = 0
    clock_steps: int = 0
    send_retries: int = 0  # sends put off as the kernel had no room
    send_errors: dict[int, int] = field(default_factory=dict)  # probes refused by the kernel, by errno


class Engine(Protocol):
    """What can run a round; the batched engine and the fakes of the tests fit this too."""

    tally: Tally

    def run_round(self, plan: Plan) -> Probed:
        """Probe every address once and return when all have an outcome, or early once told to stop."""
        ...
