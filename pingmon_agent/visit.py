"""One connection to the server as the loop of uplink.py sees it. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from .answers import Answer
from .link import Link, Message


@dataclass
class Timers:
    """When patience ends, on the monotonic clock; None: not waiting."""

    answer_by: float | None = None
    ack_by: float | None = None
    ask_at: float | None = None
    targets_by: float | None = None

    def next(self) -> float | None:
        """The earliest."""
        return min(
            (t for t in (self.answer_by, self.ack_by, self.ask_at, self.targets_by) if t is not None), default=None
        )


@dataclass
class Visit:
    """One connection from its first answer to its end."""

    link: Link
    ip_address: str
    timers: Timers = field(default_factory=Timers)
    answered: bool = False
    early: list[Message] = field(default_factory=list)
    last: Answer | None = None
    ended: str = ""
    turns: int = 0  # of the epoch, without a report between
