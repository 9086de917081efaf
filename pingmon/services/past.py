"""The picture as it was at an instant of the time that raw rounds are kept: the same cells, worked out from the store.

Rows and columns are those of today. Must not know: HTTP, how rounds are packed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from pingmon.concurrency import run_blocking
from pingmon.store.rounds import FLAG_LATE, RoundStore, StoreError

from .cells import WINDOW, Thresholds
from .clock import Clock
from .clocks import Clocks
from .errors import Invalid, Unavailable
from .grid import Grid
from .recent import Recent
from .registry import Registry
from .timespan import parse_instant

# A cell looks back 12 rounds; two more, for rounds that were skipped.
ROUNDS_BACK = WINDOW + 2


@dataclass(frozen=True)
class Standstill:
    """A clock that stands at an instant."""

    at_ms: int

    def wall_ms(self) -> int:
        """Always the same."""
        return self.at_ms

    def monotonic(self) -> float:
        """Always the same."""
        return self.at_ms / 1000


class Past:
    """Reads; decides nothing."""

    def __init__(
        self,
        registry: Registry,
        store: RoundStore,
        clock: Clock,
        clocks: Clocks,
        limits: Thresholds,
        raw_hours: float,
    ) -> None:
        self._registry, self._store, self._limits = registry, store, limits
        self._clock, self._clocks, self._raw_hours = clock, clocks, raw_hours

    def picture_json(self, at: str) -> dict[str, Any]:
        """The body of `/api/v1/grid?at=`: as `Grid.picture_json` has it, and `samples`, the last one of each pair in us
        or as the code of its outcome (docs/wire.md). Raises Invalid, Unavailable.
        """
        now = self._clock.wall_ms()
        at_ms = parse_instant(at, now)
        if at_ms < now - self._raw_hours * 3_600_000:
            raise Invalid(f"single rounds are kept for {self._raw_hours:g} hours; ask for a later `at`, or the history")
        shown_ms = self._clocks.shown_ms
        picture = Grid(self._registry, Recent(), Standstill(at_ms), self._limits, shown_ms=shown_ms, live=False)
        for agent in picture.layout.agents:
            self._fill(picture, agent.no, at_ms)
            time.sleep(0)  # others want to be served in between
        return run_blocking(_described, picture, at_ms)

    def _fill(self, picture: Grid, agent_no: int, at_ms: int) -> None:
        behind, ahead = self._clocks.reach_ms(agent_no)
        since_ms = at_ms - round(ROUNDS_BACK * self._registry.interval_s * 1000)
        try:
            rounds = run_blocking(self._store.between, agent_no, since_ms - behind, at_ms + 1 + ahead)
        except StoreError as error:
            raise Unavailable(f"the sample store cannot be read now ({error}); try again in a moment") from error
        # What came late was not known then, but it is what happened then.
        window = [
            replace(stored, flags=stored.flags & ~FLAG_LATE)
            for stored in rounds
            if since_ms <= self._clocks.shown_ms(stored) <= at_ms
        ]
        known = self._registry.target_set(agent_no, window[-1].revision) if window else None
        if known is None:
            return
        if all(stored.revision == known.revision for stored in window):
            picture.add_window(window, known.target_ids)
            return
        for stored in window:
            sets = self._registry.target_set(agent_no, stored.revision)
            if sets is not None:
                picture.add(stored, sets.target_ids)


def _described(picture: Grid, at_ms: int) -> dict[str, Any]:
    """Plain arithmetic, off the hub: a hundred thousand cells take a while."""
    samples = [picture.row(agent.no, at_ms).last.tolist() for agent in picture.layout.agents]
    return picture.picture_json() | {"samples": samples}
