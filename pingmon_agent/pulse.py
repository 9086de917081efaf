"""A loop's word for how long its next step takes, for whoever watches whether it still turns.

Before each step, a wait too, the loop says within which time it is back. A thread that hangs or has died breaks that
word. Must not know: what the loop does, who watches.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pulse:
    """`slack_s`: what any step may take beyond what was said. On a clock that stands still while the host sleeps."""

    def __init__(self, slack_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._slack_s, self._now = slack_s, now
        self._back_by: float | None = None

    def beat(self, within_s: float = 0.0) -> None:
        """The loop turns, and will again within `within_s` seconds."""
        self._back_by = self._now() + within_s + self._slack_s

    @property
    def begun(self) -> bool:
        """Whether the loop has turned at all."""
        return self._back_by is not None

    @property
    def stopped(self) -> bool:
        """Whether it should have been back by now; before its first turn it is not late."""
        return self._back_by is not None and self._now() > self._back_by
