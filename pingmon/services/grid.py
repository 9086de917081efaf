"""The picture: for every pair its last sample and a state, kept up round by round so that nobody ever recomputes it.

A state looks at the last 12 rounds: one lost ping makes a path lossy, three in a row make it down. Rounds the agent
itself marked as disturbed say nothing about loss. Must not know: sockets, HTTP.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pingmon.store.rounds import FLAG_DISTURBED, StoredRound
from pingmon_agent.wire.contract import Outcome

from .clock import Clock
from .recent import Recent
from .registry import Registry
from .targets import MEASURING
from .views import AgentView, TargetView

WINDOW = 12
DOWN_AFTER = 3
STALE_AFTER_ROUNDS = 3
_WINDOW_MASK = (1 << WINDOW) - 1
_DOWN_MASK = (1 << DOWN_AFTER) - 1
_LOSS = (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED)
_OWN_FAULT = (Outcome.NOT_SENT, Outcome.UNRESOLVED, Outcome.REFUSED_BY_POLICY)


class CellState(IntEnum):
    """What a cell says; the number goes to browsers, the word into JSON."""

    NONE = 0
    OK = 1
    SLOW = 2
    BAD = 3
    LOSSY = 4
    DOWN = 5
    ERROR = 6
    STALE = 7

    @property
    def word(self) -> str:
        """As in `/api/v1/grid`."""
        return self.name.lower()


@dataclass(frozen=True)
class Thresholds:
    """RTT limits in microseconds."""

    warn_us: int
    bad_us: int


@dataclass
class Row:
    """One agent's cells in the order of its own target set.

    `lost` and `sent` are shift registers of the last 12 rounds, newest in bit 0.
    """

    revision: int
    target_ids: tuple[int, ...]
    last: array[int]
    lost: array[int]
    sent: array[int]
    states: bytearray
    at_ms: int = 0

    @classmethod
    def empty(cls, revision: int, target_ids: tuple[int, ...]) -> Row:
        """A row nothing was measured for yet."""
        n = len(target_ids)
        return cls(
            revision, target_ids, array("i", [Outcome.NOT_PROBED]) * n, array("H", [0]) * n, array("H", [0]) * n,
            bytearray(n),
        )  # fmt: skip

    def moved_to(self, revision: int, target_ids: tuple[int, ...]) -> Row:
        """The same cells in the order of another set."""
        row = Row.empty(revision, target_ids)
        place = {target_id: i for i, target_id in enumerate(self.target_ids)}
        for i, target_id in enumerate(target_ids):
            j = place.get(target_id)
            if j is not None:
                row.last[i], row.lost[i], row.sent[i] = self.last[j], self.lost[j], self.sent[j]
                row.states[i] = self.states[j]
        row.at_ms = self.at_ms
        return row

    def take(self, samples: array[int], disturbed: bool, limits: Thresholds) -> None:
        """Work one round in."""
        last, lost, sent, states = self.last, self.lost, self.sent, self.states
        for i, sample in enumerate(samples):
            if sample == Outcome.NOT_PROBED:
                continue
            last[i] = sample
            if sample >= 0:
                sent[i] = (sent[i] << 1 | 1) & _WINDOW_MASK
                lost[i] = lost[i] << 1 & _WINDOW_MASK
            elif sample in _LOSS and not disturbed:
                sent[i] = (sent[i] << 1 | 1) & _WINDOW_MASK
                lost[i] = (lost[i] << 1 | 1) & _WINDOW_MASK
            states[i] = _state(sample, lost[i], limits)


def _state(sample: int, lost: int, limits: Thresholds) -> int:
    if sample in _OWN_FAULT:
        return CellState.ERROR
    if lost & _DOWN_MASK == _DOWN_MASK:
        return CellState.DOWN
    if lost:
        return CellState.LOSSY
    if sample >= limits.bad_us:
        return CellState.BAD
    return CellState.SLOW if sample >= limits.warn_us else CellState.OK


@dataclass(frozen=True)
class Layout:
    """Which agent is which row, which target which column. `version` rises with each change."""

    version: int
    agents: tuple[AgentView, ...]
    targets: tuple[TargetView, ...]


@dataclass(frozen=True)
class GridRow:
    """One row in layout order: `last` int32 and `states` one byte per target."""

    last: array[int]
    states: bytes
    at_ms: int


@dataclass
class _Columns:
    """Where each target of an agent's set stands in the layout, for one layout and set."""

    key: tuple[int, int]
    places: list[int] = field(default_factory=list)


class Grid:
    """Rows by agent number, read in the order of the current layout."""

    def __init__(self, registry: Registry, recent: Recent, clock: Clock, limits: Thresholds) -> None:
        self._registry, self._recent, self._clock = registry, recent, clock
        self.limits = limits
        self._rows: dict[int, Row] = {}
        self._columns: dict[int, _Columns] = {}
        self.changed: set[int] = set()
        self._layout = Layout(0, (), ())
        registry.listeners.append(self._on_change)
        self._on_change(frozenset())

    # -- in --

    def add(self, stored: StoredRound, target_ids: tuple[int, ...]) -> None:
        """Take in a committed round; one older than what is shown only counts in the history."""
        row = self._rows.get(stored.agent_no)
        if row is None:
            row = self._rows[stored.agent_no] = Row.empty(stored.revision, target_ids)
        elif row.revision != stored.revision:
            if stored.revision < row.revision:
                return
            row = self._rows[stored.agent_no] = row.moved_to(stored.revision, target_ids)
        # Legacy agents report target by target, a little out of order; data from before an outage stays out.
        if stored.started_ms < row.at_ms - self._registry.interval_s * 1000:
            return
        row.at_ms = max(row.at_ms, stored.started_ms)
        row.take(stored.samples, bool(stored.flags & FLAG_DISTURBED), self.limits)
        self.changed.add(stored.agent_no)

    def _on_change(self, _concerned: frozenset[int]) -> None:
        agents = tuple(a for a in self._registry.agents() if a.state in MEASURING)
        targets = tuple(self._registry.targets())
        if (agents, targets) == (self._layout.agents, self._layout.targets):
            return
        self._layout = Layout(self._layout.version + 1, agents, targets)
        self._rows = {a.no: row for a in agents if (row := self._rows.get(a.no)) is not None}
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
        return row is not None and now_ms - row.at_ms > patience_ms

    def row(self, agent_no: int, now_ms: int) -> GridRow:
        """One agent's cells in layout order."""
        width = len(self._layout.targets)
        last, states = array("i", [Outcome.NOT_PROBED]) * width, bytearray(width)
        row = self._rows.get(agent_no)
        if row is None:
            return GridRow(last, bytes(states), 0)
        stale = self.stale(agent_no, now_ms)
        for i, place in enumerate(self._places(agent_no, row)):
            if place >= 0:
                last[place] = row.last[i]
                states[place] = CellState.STALE if stale and row.states[i] else row.states[i]
        return GridRow(last, bytes(states), row.at_ms)

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
            if row is not None and place >= 0 and row.sent[i]:
                losses[place] = round(row.lost[i].bit_count() / row.sent[i].bit_count(), 4)
        return losses

    def layout_json(self) -> dict[str, Any]:
        """Rows and columns for browsers."""
        return {
            "version": self._layout.version,
            "interval_s": self._registry.interval_s,
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
        return body | {
            "at": now / 1000,
            "rtt_ms": [[us / 1000 if us >= 0 else None for us in row.last] for row in rows],
            "state": [[CellState(code).word for code in row.states] for row in rows],
            "loss": [self.loss(a.no) for a in self._layout.agents],
        }
