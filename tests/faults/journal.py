"""What happened last, for whoever has to find out why a fault did not pass."""

from __future__ import annotations

import time
from collections import deque


class Journal:
    """The last 20 events with their time since the start."""

    def __init__(self, count: int = 20) -> None:
        self._began = time.monotonic()
        self._events: deque[str] = deque(maxlen=count)

    def note(self, what: str) -> None:
        """Something happened, or was made to happen."""
        self._events.append(f"{time.monotonic() - self._began:8.3f} s  {what}")

    def text(self) -> str:
        """The events, oldest first."""
        return "\n".join(self._events)
