"""When rounds become chunks: whole hours that ended an hour ago, a chunk at a time, between two commits.

Must not know: SQL, what a chunk looks like, sockets.
"""

from __future__ import annotations

import logging

from pingmon.concurrency import run_blocking
from pingmon.store.compaction import HOUR_MS, Part
from pingmon.store.rounds import RoundStore, StoreError

from .clock import Clock
from .ingest import Ingest

# An agent keeps half an hour: after a whole one hardly any round can still come that belongs into the chunk.
MIN_AGE_MS = 3_600_000
log = logging.getLogger("pingmon.compaction")


def compactable_before_ms(now_ms: int) -> int:
    """Rounds that started before this, the end of an hour, may become chunks."""
    return (now_ms - MIN_AGE_MS) // HOUR_MS * HOUR_MS


class Compaction:
    """Run by the scheduler. `rounds`: how many have been compacted, for metrics."""

    def __init__(self, store: RoundStore, ingest: Ingest, clock: Clock) -> None:
        self._store, self._ingest, self._clock = store, ingest, clock
        self._parts: list[Part] = []
        self._busy = False
        self.rounds = 0

    def run(self) -> None:
        """Look what there is to do and ask the committer to do it; nothing while it still works on the last answer."""
        if self._busy:
            return
        before = compactable_before_ms(self._clock.wall_ms())
        # Oldest first: the last one of the list is taken next.
        self._parts = run_blocking(self._store.compactable, before)[::-1]
        self._go_on()

    def _step(self) -> None:
        part = self._parts.pop()
        try:
            moved = run_blocking(self._store.compact, part)
            if moved:
                self.rounds += moved
                self._parts.append(part)
        except StoreError:
            # What keeps one part from being written keeps all of them: the scheduler comes again.
            self._parts.clear()
            raise
        finally:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = bool(self._parts)
        if self._busy:
            self._ingest.between_commits(self._step)
