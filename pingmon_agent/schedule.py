"""When a round starts and what it covers: every `interval_s` on a clock that never jumps, one round at a time.

Ticks sit at a phase hashed from the agent's id, so a fleet that booted together does not fire together. A target set
takes effect between rounds; the first one at once. Must not know: sockets, names, the server.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .wire.contract import TargetSet

# Later than this part of an interval is not a late round but a disturbed one: the host was busy, asleep or stopped.
_DISTURBED = 0.25


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One round that is due now. `skipped` rounds before it never happened (a stall, a suspended host)."""

    targets: TargetSet
    lag_s: float
    skipped: int
    disturbed: bool
    changed: bool


class Schedule:
    """Owned by the round thread; only `offer` may be called from others."""

    def __init__(self, agent_key: str, now: Callable[[], float]) -> None:
        digest = hashlib.sha256(agent_key.encode()).digest()
        self._phase = int.from_bytes(digest[:8], "big") / 2**64
        self._now = now
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._offered: TargetSet | None = None
        self._current: TargetSet | None = None
        self._due = -math.inf

    @property
    def current(self) -> TargetSet | None:
        """The set the last round used."""
        return self._current

    def offer(self, targets: TargetSet) -> None:
        """Use `targets` from the next round on."""
        with self._lock:
            self._offered = targets
        self._arrived.set()

    def wait_s(self) -> float | None:
        """Seconds until the next round is due, 0 if it is; None while there is nothing to probe."""
        with self._lock:
            offered = self._offered
        if self._current is None or not self._current.targets:
            return 0.0 if offered is not None and offered.targets else None
        return max(0.0, self._due - self._now())

    def wait_for_targets(self, timeout_s: float) -> None:
        """Sleep until a set is offered, or for `timeout_s`."""
        self._arrived.wait(timeout_s)
        self._arrived.clear()

    def begin(self) -> Tick | None:
        """Start the round that is due; None if the set in force is empty."""
        first = self._current is None or not self._current.targets
        changed = self._take()
        if self._current is None or not self._current.targets:
            return None
        now, interval = self._now(), self._current.interval_s
        lag = 0.0 if first else max(0.0, now - self._due)
        skipped = int(lag // interval)
        self._due = self._next_tick(now, interval)
        late = lag - skipped * interval > _DISTURBED * interval
        return Tick(targets=self._current, lag_s=lag, skipped=skipped, disturbed=skipped > 0 or late, changed=changed)

    def _take(self) -> bool:
        with self._lock:
            offered, self._offered = self._offered, None
        if offered is None:
            return False
        changed = offered != self._current
        self._current = offered
        return changed

    def _next_tick(self, now: float, interval: float) -> float:
        """The first tick at least half an interval away, so that rounds keep their distance after a late start."""
        phase = self._phase * interval
        return math.ceil((now + interval / 2 - phase) / interval) * interval + phase
