"""Time, handed in: services never ask the system themselves, so tests can let hours pass in a moment."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a service may ask."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds; may step."""

    def monotonic(self) -> float:
        """Seconds that only rise."""


class SystemClock:
    """The real one."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()
