"""The picture as it was at an instant of the time that raw rounds are kept: the same cells, worked out from the store.

Rows and columns are those of today. Must not know: HTTP, how rounds are packed.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pingmon.concurrency import run_blocking
from pingmon.store.rounds import FLAG_LATE, RoundStore, StoreError, Window

from .cells import WINDOW, Thresholds
from .clock import Clock
from .clocks import Clocks
from .errors import AWAY, Invalid, Unavailable
from .grid import Grid, GridRow
from .recent import Recent
from .registry import Registry
from .timespan import parse_instant
from .views import SetView

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

    def picture_json(self, at: str) -> str:
        """The body of `/api/v1/grid?at=`: as `Grid.picture_json` has it, and `samples`, the last one of each pair in us
        or as the code of its outcome (docs/wire.md). Raises Invalid, Unavailable.
        """
        picture, at_ms = self._picture(at)
        return run_blocking(_as_text, picture, at_ms)

    def picture_packed(self, at: str) -> bytes:
        """The same for programs that draw it (docs/operations.md): uint32 length of a head in JSON, the head, R x T
        int32 samples, R x T bytes of states; little-endian. Raises Invalid, Unavailable.
        """
        picture, at_ms = self._picture(at)
        return run_blocking(_as_bytes, picture, at_ms)

    def _picture(self, at: str) -> tuple[Grid, int]:
        now = self._clock.wall_ms()
        at_ms = parse_instant(at, now)
        if at_ms < now - self._raw_hours * 3_600_000:
            raise Invalid(f"single rounds are kept for {self._raw_hours:g} hours; ask for a later `at`, or the history")
        shown_ms = self._clocks.shown_ms
        picture = Grid(self._registry, Recent(), Standstill(at_ms), self._limits, shown_ms=shown_ms, live=False)
        sets = self._registry.snapshot.sets
        try:
            windows = run_blocking(self._windows, [agent.no for agent in picture.layout.agents], at_ms)
            left = run_blocking(_add_windows, picture, windows, {no: (sets[no],) for no in windows if no in sets})
            # What they measured under an older list: that one may have to be looked up in the other database.
            old = {no: self._set_of(no, left[no]) for no in left}
            left = run_blocking(_add_windows, picture, left, old)
        except StoreError as error:
            raise Unavailable(AWAY.format(error)) from error
        for agent in picture.layout.agents:
            if agent.no in left or agent.no not in windows:
                self._add_rounds(picture, agent.no, at_ms)
                time.sleep(0)  # others want to be served in between
        return picture, at_ms

    def _since_ms(self, at_ms: int) -> int:
        return at_ms - round(ROUNDS_BACK * self._registry.interval_s * 1000)

    def _windows(self, agents: list[int], at_ms: int) -> dict[int, Window]:
        """In a native thread. Agents whose clocks were off are left out: theirs are to be sorted by corrected times."""
        found = {}
        for agent_no in agents:
            if self._clocks.reach_ms(agent_no) == (0, 0):
                window = self._store.window(agent_no, self._since_ms(at_ms), at_ms + 1)
                if window is not None:
                    found[agent_no] = window
        return found

    def _set_of(self, agent_no: int, window: Window) -> tuple[SetView, ...]:
        known = self._registry.target_set(agent_no, window.heads[0].revision)
        return (known,) if known else ()

    def _add_rounds(self, picture: Grid, agent_no: int, at_ms: int) -> None:
        behind, ahead = self._clocks.reach_ms(agent_no)
        since_ms = self._since_ms(at_ms)
        try:
            rounds = run_blocking(self._store.between, agent_no, since_ms - behind, at_ms + 1 + ahead)
        except StoreError as error:
            raise Unavailable(AWAY.format(error)) from error
        for stored in rounds:
            if since_ms <= self._clocks.shown_ms(stored) <= at_ms:
                sets = self._registry.target_set(agent_no, stored.revision)
                if sets is not None:
                    # What came late was not known then, but it is what happened then.
                    picture.add(replace(stored, flags=stored.flags & ~FLAG_LATE), sets.target_ids)


def _add_windows(
    picture: Grid, windows: Mapping[int, Window], sets: Mapping[int, tuple[SetView, ...]]
) -> dict[int, Window]:
    """In a native thread. Gives back those that could not be added."""
    left = {}
    for agent_no, window in windows.items():
        fitting = [known for known in sets.get(agent_no, ()) if known.revision == window.heads[0].revision]
        if not fitting or not picture.add_window(agent_no, window, fitting[0].target_ids):
            left[agent_no] = window
    return left


def _samples(picture: Grid, at_ms: int) -> list[GridRow]:
    return [picture.row(agent.no, at_ms) for agent in picture.layout.agents]


def _as_text(picture: Grid, at_ms: int) -> str:
    """Arithmetic, off the hub. The encoder lets nobody else go on before it is done, so it gets one row at a time."""
    body = picture.picture_json() | {"samples": [row.last.tolist() for row in _samples(picture, at_ms)]}
    fields = []
    for name, value in body.items():
        text = f"[{','.join(json.dumps(row) for row in value)}]" if isinstance(value, list) else json.dumps(value)
        fields.append(f"{json.dumps(name)}:{text}")
    return f"{{{','.join(fields)}}}"


def _as_bytes(picture: Grid, at_ms: int) -> bytes:
    rows = _samples(picture, at_ms)
    head = picture.head_json(rows)
    values = array("i")
    for row in rows:
        values.extend(row.last)
    if sys.byteorder == "big":
        values.byteswap()
    text = json.dumps(head).encode()
    return b"".join((len(text).to_bytes(4, "little"), text, values.tobytes(), *(row.states for row in rows)))
