"""The picture: which agent is which row, which target which column, and what browsers and the API get to see of it.

The cells themselves are kept in cells.py. Must not know: sockets, HTTP.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.rounds import FLAG_LATE, RoundHead, StoredRound, Window
from pingmon_agent.wire.contract import Outcome

from .cells import CellState, Row, Thresholds
from .clock import Clock
from .recent import Recent
from .registry import Registry
from .targets import MEASURING
from .views import AgentView, TargetView

STALE_AFTER_ROUNDS = 3
WORDS = tuple(state.word for state in CellState)
# What was measured once is old now; what never was stays empty.
_GONE_STALE = bytes([CellState.NONE]) + bytes([CellState.STALE]) * 255


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


ShownMs = Callable[[RoundHead], int]


@dataclass
class _Columns:
    """Where each target of an agent's set stands in the layout, for one layout and set."""

    key: tuple[int, int]
    places: list[int] = field(default_factory=list)
    straight: bool = False  # the layout's own order: everything can be copied as it is


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
        self._layout, self._where = Layout(0, (), ()), dict[int, int]()
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

    def add_window(self, agent_no: int, window: Window, target_ids: tuple[int, ...]) -> bool:
        """The rounds of an agent before an instant, all at once, for a grid that is not live. False, and nothing is
        done, where they have to be added one by one."""
        row = Row.empty(window.heads[0].revision, target_ids)
        news = [row.admit(head, self._registry.interval_s * 1000) for head in window.heads]
        if not all(news) or not row.take_window(window, self.limits):
            return False
        row.shown_ms = self._shown_ms(window.heads[-1])
        self._rows[agent_no] = row
        return True

    def _on_change(self, _concerned: frozenset[int]) -> None:
        agents = tuple(a for a in self._registry.agents() if a.state in MEASURING)
        targets = tuple(self._registry.targets())
        if (_shown(agents), targets) == (_shown(self._layout.agents), self._layout.targets):
            return
        self._layout = Layout(self._layout.version + 1, agents, targets)
        self._where = {t.id: i for i, t in enumerate(targets)}
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
        columns = self._placed(agent_no, row)
        if columns.straight:
            last, states = row.last[:], row.states[:]
        else:
            for i, place in enumerate(columns.places):
                if place >= 0:
                    last[place], states[place] = row.last[i], row.states[i]
        if self.stale(agent_no, now_ms):
            states = states.translate(_GONE_STALE)
        return GridRow(last, bytes(states), row.shown_ms, row.heard_ms, row.disturbed)

    def _placed(self, agent_no: int, row: Row) -> _Columns:
        key = (self._layout.version, row.revision)
        columns = self._columns.get(agent_no)
        if columns is None or columns.key != key:
            straight = row.target_ids == tuple(self._where)
            places = [self._where.get(target_id, -1) for target_id in row.target_ids] if not straight else []
            columns = _Columns(key, places or list(range(len(self._where))), straight)
            self._columns[agent_no] = columns
        return columns

    def loss(self, agent_no: int) -> list[float | None]:
        """Share of the last 12 rounds that was lost, in layout order; None where nothing was sent."""
        losses: list[float | None] = [None] * len(self._layout.targets)
        row = self._rows.get(agent_no)
        if row is not None:
            for place, loss in zip(self._placed(agent_no, row).places, row.losses(), strict=True):
                if place >= 0:
                    losses[place] = loss
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
        rows = [self.row(a.no, now) for a in self._layout.agents]
        return self.head_json(rows) | {
            "rtt_ms": [[us / 1000 if us >= 0 else None for us in row.last] for row in rows],
            "state": [[WORDS[code] for code in row.states] for row in rows],
            "loss": [self.loss(a.no) for a in self._layout.agents],
        }

    def head_json(self, rows: Sequence[GridRow]) -> dict[str, Any]:
        """The layout and what is known of each row as a whole; `at` and `last_round` in unix seconds."""
        body = self.layout_json() | {"at": self._clock.wall_ms() / 1000}
        for agent, row in zip(body["agents"], rows, strict=True):
            agent["last_round"] = row.at_ms / 1000 if row.at_ms else None
            agent["disturbed"] = row.disturbed
        return body
