"""The picture: which agent is which row, which target which column, and what browsers and the API get to see of it.

The cells themselves are kept in cells.py. Must not know: sockets, HTTP.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.rounds import FLAG_LATE, StoredRound
from pingmon_agent.wire.contract import Outcome

from .cells import CellState, Row, Thresholds
from .clock import Clock
from .recent import Recent
from .registry import Registry
from .targets import MEASURING
from .views import AgentView, TargetView

STALE_AFTER_ROUNDS = 3


@dataclass(frozen=True)
class Layout:
    """Which agent is which row, which target which column. `version` rises with each change."""

    version: int
    agents: tuple[AgentView, ...]
    targets: tuple[TargetView, ...]


def _shown(agents: tuple[AgentView, ...]) -> list[tuple[int, str, str]]:
    """What of the agents makes a layout: when one was last seen must not send everybody a new picture."""
    return [(a.no, a.hostname, a.state) for a in agents]


@dataclass(frozen=True)
class GridRow:
    """One row in layout order: `last` int32 and `states` one byte per target; times as in `Row`."""

    last: array[int]
    states: bytes
    at_ms: int
    heard_ms: int
    disturbed: bool = False


ShownMs = Callable[[StoredRound], int]


@dataclass
class _Columns:
    """Where each target of an agent's set stands in the layout, for one layout and set."""

    key: tuple[int, int]
    places: list[int] = field(default_factory=list)


class Grid:
    """Rows by agent number, read in the order of the current layout."""

    def __init__(
        self,
        registry: Registry,
        recent: Recent,
        clock: Clock,
        limits: Thresholds,
        trouble: Callable[[], str | None] = lambda: None,
        shown_ms: ShownMs = lambda stored: stored.started_ms,
        *,
        live: bool = True,
    ) -> None:
        """`shown_ms`: when a round started, as people are shown it. `trouble`: why the picture may be old through no
        fault of any agent, in a sentence; None if it is not. Not `live`: a picture of some moment, which does not
        follow what changes later.
        """
        self._registry, self._recent, self._clock, self._trouble = registry, recent, clock, trouble
        self.limits = limits
        self._shown_ms = shown_ms
        self._rows: dict[int, Row] = {}
        self._columns: dict[int, _Columns] = {}
        self.changed: set[int] = set()
        self._layout = Layout(0, (), ())
        if live:
            registry.listeners.append(self._on_change)
        self._on_change(frozenset())

    # -- in --

    def add(self, stored: StoredRound, target_ids: tuple[int, ...]) -> None:
        """Take in a committed round; one that came late, or is older than what is shown, only counts in the history."""
        if stored.flags & FLAG_LATE:
            return
        row = self._rows.get(stored.agent_no)
        if row is None:
            row = self._rows[stored.agent_no] = Row.empty(stored.revision, target_ids)
        elif row.revision != stored.revision:
            if stored.revision < row.revision:
                return
            row = self._rows[stored.agent_no] = row.moved_to(stored.revision, target_ids)
        if row.admit(stored, self._registry.interval_s * 1000):
            if row.at_ms == stored.started_ms:
                row.shown_ms = self._shown_ms(stored)
            row.take(stored, self.limits)
            self.changed.add(stored.agent_no)

    def add_window(self, rounds: Sequence[StoredRound], target_ids: tuple[int, ...]) -> None:
        """The rounds of an agent before an instant, oldest first, all of one set: for a grid that is not live."""
        row = self._rows[rounds[0].agent_no] = Row.empty(rounds[0].revision, target_ids)
        news = [stored for stored in rounds if row.admit(stored, self._registry.interval_s * 1000)]
        if news:
            row.shown_ms = self._shown_ms(news[-1])
            row.take_window(news, self.limits)

    def _on_change(self, _concerned: frozenset[int]) -> None:
        agents = tuple(a for a in self._registry.agents() if a.state in MEASURING)
        targets = tuple(self._registry.targets())
        if (_shown(agents), targets) == (_shown(self._layout.agents), self._layout.targets):
            return
        self._layout = Layout(self._layout.version + 1, agents, targets)
        measuring = {a.no for a in agents}
        self._rows = {no: row for no, row in self._rows.items() if no in measuring}
        self._columns = {no: columns for no, columns in self._columns.items() if no in measuring}
        self._recent.forget(self._recent.agents() - self._registry.snapshot.agents.keys())

    # -- out --

    @property
    def layout(self) -> Layout:
        """Rows and columns as they are now."""
        return self._layout

    def stale(self, agent_no: int, now_ms: int) -> bool:
        """Whether this agent has been silent for too long to believe its last values."""
        row = self._rows.get(agent_no)
        patience_ms = STALE_AFTER_ROUNDS * self._registry.interval_s * 1000
        return row is not None and now_ms - row.heard_ms > patience_ms

    def row(self, agent_no: int, now_ms: int) -> GridRow:
        """One agent's cells in layout order."""
        width = len(self._layout.targets)
        last, states = array("i", [Outcome.NOT_PROBED]) * width, bytearray(width)
        row = self._rows.get(agent_no)
        if row is None:
            return GridRow(last, bytes(states), 0, 0)
        stale = self.stale(agent_no, now_ms)
        for i, place in enumerate(self._places(agent_no, row)):
            if place >= 0:
                last[place] = row.last[i]
                states[place] = CellState.STALE if stale and row.states[i] else row.states[i]
        return GridRow(last, bytes(states), row.shown_ms, row.heard_ms, row.disturbed)

    def _places(self, agent_no: int, row: Row) -> list[int]:
        key = (self._layout.version, row.revision)
        columns = self._columns.get(agent_no)
        if columns is None or columns.key != key:
            where = {t.id: i for i, t in enumerate(self._layout.targets)}
            columns = _Columns(key, [where.get(target_id, -1) for target_id in row.target_ids])
            self._columns[agent_no] = columns
        return columns.places

    def loss(self, agent_no: int) -> list[float | None]:
        """Share of the last 12 rounds that was lost, in layout order; None where nothing was sent."""
        losses: list[float | None] = [None] * len(self._layout.targets)
        row = self._rows.get(agent_no)
        for i, place in enumerate(self._places(agent_no, row) if row else ()):
            if row is not None and place >= 0:
                losses[place] = row.loss(i)
        return losses

    def layout_json(self) -> dict[str, Any]:
        """Rows and columns for browsers."""
        return {
            "version": self._layout.version,
            "interval_s": self._registry.interval_s,
            "trouble": self._trouble(),
            "thresholds": {"warn_ms": self.limits.warn_us / 1000, "bad_ms": self.limits.bad_us / 1000},
            "agents": [
                {
                    "id": a.id,
                    "hostname": a.hostname,
                    "state": a.state,
                    "connected": a.no in self._registry.connected,
                }
                for a in self._layout.agents
            ],
            "targets": [t.as_json() for t in self._layout.targets],
        }

    def picture_json(self) -> dict[str, Any]:
        """The body of `/api/v1/grid`: everything as it is now, row by row."""
        now = self._clock.wall_ms()
        body = self.layout_json()
        rows = [self.row(a.no, now) for a in self._layout.agents]
        for agent, row in zip(body["agents"], rows, strict=True):
            agent["last_round"] = row.at_ms / 1000 if row.at_ms else None
            agent["disturbed"] = row.disturbed
        return body | {
            "at": now / 1000,
            "rtt_ms": [[us / 1000 if us >= 0 else None for us in row.last] for row in rows],
            "state": [[CellState(code).word for code in row.states] for row in rows],
            "loss": [self.loss(a.no) for a in self._layout.agents],
        }
