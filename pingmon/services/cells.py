"""One row of the picture: for every pair its last sample and a state, worked out round by round, never recomputed.

A state looks at the last 12 rounds: one lost ping makes a path lossy, three rounds without any reply make it down.
Rounds the agent itself marked as disturbed say nothing about loss. Must not know: agents, layouts, sockets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from pingmon.store.rounds import FLAG_DISTURBED, RoundHead, StoredRound, Window
from pingmon_agent.wire.contract import Outcome

from .ingest import AHEAD_MS
from .legacy import EPOCH as LEGACY_EPOCH

WINDOW = 12
DOWN_AFTER = 3
_WINDOW_MASK = (1 << WINDOW) - 1
_DOWN_MASK = (1 << DOWN_AFTER) - 1
_LOSS = (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.TTL_EXCEEDED)


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

    def states_of(self, replies: Sequence[int]) -> bytes:
        """The state of each cell by its round-trip time alone. Nearly all the work of a round, so it is done in C."""
        if replies and max(replies) < self.warn_us:
            return bytes((CellState.OK,)) * len(replies)
        # How many of these bounds a value has reached is its state: OK, SLOW, BAD are 1, 2, 3.
        return bytes(map(partial(bisect_right, (-(2**31), self.warn_us, self.bad_us)), replies))


@dataclass
class Burst:
    """A cell that is probed several times a round: its columns, and (lost, sent) of the last 12 rounds."""

    columns: tuple[int, ...]
    window: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def gather(self, samples: Sequence[int], disturbed: bool) -> tuple[int, int, int]:
        """(sample to show, lost, sent) of one round: the median reply, or else what became of the first probe."""
        own = [samples[column] for column in self.columns]
        replies = sorted(sample for sample in own if sample >= 0)
        lost = 0 if disturbed else sum(1 for sample in own if sample in _LOSS)
        shown = replies[len(replies) // 2] if replies else own[0]
        return shown, lost, len(replies) + lost


@dataclass
class Row:
    """One agent's cells, one per target of its set, in its order.

    `lost`, `dead` and `sent` are shift registers of the last 12 rounds, newest in bit 0: something was lost, all was
    lost, something was sent. The newest round started at `at_ms` by the agent's clock (`shown_ms`: with that clock put
    right) and came at `heard_ms` by ours: only the latter tells how old the row is. `disturbed`: in the newest round
    the agent's host itself was late or starved. `odd`: cells that have lost something in that time, or have not been
    probed that often yet.
    """

    revision: int
    target_ids: tuple[int, ...]
    bursts: dict[int, Burst]
    singles: tuple[int, ...] | None
    last: array[int]
    lost: array[int]
    dead: array[int]
    sent: array[int]
    states: bytearray
    odd: set[int]
    epoch: str = ""
    seq: int = 0
    at_ms: int = 0
    heard_ms: int = 0
    shown_ms: int = 0
    disturbed: bool = False

    @classmethod
    def empty(cls, revision: int, columns: tuple[int, ...]) -> Row:
        """A row nothing was measured for yet; `columns` holds the target id of each column."""
        cells = tuple(dict.fromkeys(columns))
        n = len(cells)
        bursts: dict[int, Burst] = {}
        singles = None
        if n < len(columns):
            bursts, singles = _bursts(columns)
        return cls(
            revision=revision,
            target_ids=cells,
            bursts=bursts,
            # None: every column is a cell of its own, and nothing has to be looked up
            singles=singles,
            last=array("i", [Outcome.NOT_PROBED]) * n,
            lost=array("H", [0]) * n,
            dead=array("H", [0]) * n,
            sent=array("H", [0]) * n,
            states=bytearray(n),
            odd=set(range(n)),
        )

    def moved_to(self, revision: int, columns: tuple[int, ...]) -> Row:
        """The same cells in the order of another set."""
        row = Row.empty(revision, columns)
        place = {target_id: i for i, target_id in enumerate(self.target_ids)}
        for i, target_id in enumerate(row.target_ids):
            j = place.get(target_id)
            if j is None:
                continue
            for mine, old in ((row.last, self.last), (row.lost, self.lost), (row.dead, self.dead)):
                mine[i] = old[j]
            row.sent[i], row.states[i] = self.sent[j], self.states[j]
            if i in row.bursts and j in self.bursts:
                row.bursts[i].window = self.bursts[j].window
        row.epoch, row.seq, row.at_ms, row.heard_ms = self.epoch, self.seq, self.at_ms, self.heard_ms
        row.shown_ms = self.shown_ms
        return row

    def admit(self, stored: RoundHead, slack_ms: float) -> bool:
        """Whether a round is news for the picture; noted if so. Its number tells, for clocks step.

        Legacy agents number nothing and report target by target, a little out of order: there the clock has to do.
        """
        newest = self.at_ms if self.at_ms <= stored.received_ms + AHEAD_MS else 0  # our clock was set back
        if stored.epoch == LEGACY_EPOCH:
            news = stored.started_ms >= newest - slack_ms
        else:
            news = stored.epoch != self.epoch or stored.seq > self.seq
        if news:
            self.epoch, self.seq, self.heard_ms = stored.epoch, stored.seq, stored.received_ms
            self.at_ms = max(newest, stored.started_ms)
        return news

    def take_window(self, window: Window, limits: Thresholds) -> bool:
        """Work consecutive rounds of one set into a row that is still empty: the same as one by one, in less time.
        False, and nothing is done, where that takes more than knowing what was missed."""
        rounds, newest = window.heads, window.newest
        if len(rounds) < WINDOW or self.singles is not None or any(head.flags & FLAG_DISTURBED for head in rounds):
            return False
        self.last, self.states = newest[:], bytearray(limits.states_of(newest))
        self.sent = array("H", [_WINDOW_MASK]) * len(newest)
        odd = window.odd
        self.odd = set()
        for i, samples in odd.items():
            self._take_column(i, samples, limits)
            if self.sent[i] != _WINDOW_MASK or self.lost[i]:
                self.odd.add(i)
        return True

    def _take_column(self, cell: int, samples: Sequence[int], limits: Thresholds) -> None:
        """All rounds of a window for one cell."""
        if all(sample >= 0 or sample in _LOSS for sample in samples):
            lost = 0
            for sample in samples:
                lost = lost << 1 | (sample < 0)
            self.lost[cell] = self.dead[cell] = lost & _WINDOW_MASK
            self.states[cell] = _state(samples[-1], self.lost[cell], self.dead[cell], limits)
            return
        self.last[cell], self.states[cell], self.sent[cell] = Outcome.NOT_PROBED, CellState.NONE, 0
        for sample in samples:
            self._take_cells((cell,), {cell: sample}, False, limits)

    def take(self, stored: StoredRound, limits: Thresholds) -> None:
        """Work one round in."""
        disturbed = self.disturbed = bool(stored.flags & FLAG_DISTURBED)
        samples: Sequence[int] = stored.samples
        if self.singles is not None:
            for cell, burst in self.bursts.items():
                self._take_burst(cell, burst, samples, disturbed, limits)
            samples = [samples[column] for column in self.singles]
            for cell in self.bursts:
                samples[cell] = Outcome.NOT_PROBED
        self._take_singles(samples, disturbed, limits)

    def _take_singles(self, samples: Sequence[int], disturbed: bool, limits: Thresholds) -> None:
        special = self.odd | {i for i, sample in enumerate(samples) if sample < 0}
        if disturbed or len(special) > len(samples) // 4:
            self._take_cells(range(len(samples)), samples, disturbed, limits)
            self.odd = {i for i, sent in enumerate(self.sent) if sent != _WINDOW_MASK or self.lost[i]}
            return
        # All others have answered for a whole window, as nearly always: what they show follows from this sample alone.
        before = [(i, self.last[i], self.states[i]) for i in special]
        self.last[:] = array("i", samples)
        self.states[:] = limits.states_of(samples)
        for i, last, state in before:
            self.last[i], self.states[i] = last, state
        self._take_cells(special, samples, disturbed, limits)
        self.odd = {i for i in special if self.sent[i] != _WINDOW_MASK or self.lost[i]}

    def _take_cells(
        self, cells: Iterable[int], samples: Sequence[int] | Mapping[int, int], disturbed: bool, limits: Thresholds
    ) -> None:
        last, lost, dead, sent, states = self.last, self.lost, self.dead, self.sent, self.states
        for i in cells:
            sample = samples[i]
            if sample == Outcome.NOT_PROBED or (disturbed and sample in _LOSS):
                continue
            last[i] = sample
            if sample >= 0:
                sent[i] = (sent[i] << 1 | 1) & _WINDOW_MASK
                lost[i] = dead[i] = lost[i] << 1 & _WINDOW_MASK
            elif sample in _LOSS:
                sent[i] = (sent[i] << 1 | 1) & _WINDOW_MASK
                lost[i] = dead[i] = (lost[i] << 1 | 1) & _WINDOW_MASK
            states[i] = _state(sample, lost[i], dead[i], limits)

    def _take_burst(self, cell: int, burst: Burst, samples: Sequence[int], disturbed: bool, limits: Thresholds) -> None:
        shown, lost, sent = burst.gather(samples, disturbed)
        if shown == Outcome.NOT_PROBED or (not sent and shown in _LOSS):
            return
        self.last[cell] = shown
        if sent:
            burst.window.append((lost, sent))
            self.sent[cell] = (self.sent[cell] << 1 | 1) & _WINDOW_MASK
            self.lost[cell] = (self.lost[cell] << 1 | (lost > 0)) & _WINDOW_MASK
            self.dead[cell] = (self.dead[cell] << 1 | (lost == sent)) & _WINDOW_MASK
        self.states[cell] = _state(shown, self.lost[cell], self.dead[cell], limits)

    def losses(self) -> list[float | None]:
        """Of each cell the share of the probes of the last 12 rounds that was lost; None where nothing was sent."""
        found: list[float | None] = [0.0] * len(self.target_ids)
        for cell in (*self.odd, *self.bursts):
            found[cell] = self._loss(cell)
        return found

    def _loss(self, cell: int) -> float | None:
        burst = self.bursts.get(cell)
        if burst is not None:
            sent = sum(n for _, n in burst.window)
            return round(sum(n for n, _ in burst.window) / sent, 4) if sent else None
        sent = self.sent[cell].bit_count()
        return round(self.lost[cell].bit_count() / sent, 4) if sent else None


def _bursts(columns: tuple[int, ...]) -> tuple[dict[int, Burst], tuple[int, ...]]:
    """Cells of several columns, and the first column of each cell."""
    places: dict[int, list[int]] = {}
    for i, target_id in enumerate(columns):
        places.setdefault(target_id, []).append(i)
    bursts = {cell: Burst(tuple(own)) for cell, own in enumerate(places.values()) if len(own) > 1}
    return bursts, tuple(own[0] for own in places.values())


def _state(sample: int, lost: int, dead: int, limits: Thresholds) -> int:
    if sample < 0 and sample not in _LOSS:
        return CellState.ERROR
    if dead & _DOWN_MASK == _DOWN_MASK:
        return CellState.DOWN
    if lost:
        return CellState.LOSSY
    if sample >= limits.bad_us:
        return CellState.BAD
    return CellState.SLOW if sample >= limits.warn_us else CellState.OK
