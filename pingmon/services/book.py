"""The book beside the rounds: what goes into the same transaction as rounds and cursors. Used by the committer only.

When this server was up and able to write, and how far agents' clocks are off. Must not know: sockets, SQL, how a
report is checked.
"""

from __future__ import annotations

from pingmon.store.ledger import LedgerFile, Offset, Span
from pingmon.store.rounds import Also

from .clock import Clock
from .clocks import Clocks

BEAT_S = 5.0
# Longer without a beat: a suspended host or a stall, so a time in which nobody looked.
LAPSE_S = 20.0


class Book:
    """`entry` before a commit, `failed` after it where it did not happen."""

    def __init__(self, file: LedgerFile, clock: Clock, clocks: Clocks) -> None:
        self._file, self._clock, self._clocks = file, clock, clocks
        self._offsets: list[Offset] = []
        self._since_ms: int | None = None
        self._beat_at = 0.0

    def entry(self, now_ms: int) -> Also:
        """What goes into the commit that is about to happen at `now_ms`."""
        self._offsets = self._clocks.take_news()
        return self._file.entry(self._up(now_ms), self._offsets)

    def _up(self, now_ms: int) -> Span | None:
        now = self._clock.monotonic()
        if self._since_ms is not None and not 0 <= now - self._beat_at <= LAPSE_S:
            self._since_ms = None
        if self._since_ms is None:
            self._since_ms = now_ms
        elif now - self._beat_at < BEAT_S:
            return None
        self._beat_at = now
        return self._since_ms, max(now_ms, self._since_ms)

    def failed(self) -> None:
        """The commit did not happen: from the last beat until the next commit nobody kept anything."""
        self._since_ms = None
        self._clocks.put_back(self._offsets)
