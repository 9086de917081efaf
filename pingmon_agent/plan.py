"""What a probing engine is asked and what it answers: the seam behind which engines can be exchanged.

Must not know: how probes are sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

LATE_TICK_S = 0.5  # a tick this late, and losses are no evidence against the network


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a probe leaves: bytes of payload, hop limit and code point (0: the kernel's), source ("": as routed)."""

    size: int = 56
    ttl: int = 0
    dscp: int = 0
    df: bool = False
    source: str = ""


STANDARD = Way()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One round: an address (or None: unresolved) per probe, in the order of sending; `ways` None: all STANDARD."""

    addresses: Sequence[str | None]
    window_s: float
    timeout_s: float
    ways: Sequence[Way] | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """How well this host itself did during a round. `unstamped`: packets whose time is our guess, not the kernel's."""

    lateness_s: float = 0.0  # of the worst tick
    overflow: int = 0  # packets dropped as our own buffer was full
    unstamped: int = 0
    clock_step: bool = False
    suspended: bool = False
    stopped: bool = False

    @property
    def blind(self) -> bool:
        """Whether a missing reply may be our own doing: then it is no loss but `not probed`."""
        starved = self.lateness_s > LATE_TICK_S
        return starved or self.overflow > 0 or self.clock_step or self.suspended or self.stopped


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ICMP error: its type and code, and who sent it."""

    kind: int
    code: int
    sender: str


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The outcome of a round: one int32 per target, RTT in us or an Outcome; `refusals` by place in the plan."""

    samples: array[int]
    started_ms: int
    disturbed: bool
    health: Health = Health()
    refusals: Mapping[int, Refusal] = field(default_factory=dict)


@dataclass
class Tally:
    """Since the start: what was seen beside the results. Read by the metrics."""

    sent: int = 0
    duplicates: int = 0
    late: int = 0  # right replies, but after the timeout or the round
    last_late_us: int = 0  # how long the last of those of the round before took
    foreign: int = 0  # with our id, but no answer to a probe of ours
    wrong_source: int = 0  # right in all but the address they came from
    corrupt: int = 0
    overflow: int = 0
    unstamped: int = 0
    clock_steps: int = 0
    suspends: int = 0
    identities: int = 0  # times new ids were taken
    send_retries: int = 0  # sends put off as the kernel had no room
    send_errors: dict[int, int] = field(default_factory=dict)  # probes refused by the kernel, by errno
    icmp_errors: dict[tuple[int, int, int], int] = field(default_factory=dict)  # by IP version, type, code


class Engine(Protocol):
    """What can run a round; the batched engine and the fakes of the tests fit this too."""

    tally: Tally

    def run_round(self, plan: Plan) -> Probed:
        """Probe every address once and return when all have an outcome, or early once told to stop."""
        ...
