"""The book beside the rounds: what goes into the same transaction as rounds and cursors. Used by the committer only.

Which rounds are there, slot by slot, and why some never come; when this server was up and able to write; how far
agents' clocks are off. Must not know: sockets, SQL, how a report is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pingmon.store.ledger import Entry, Gap, LedgerFile, Slot, Span
from pingmon.store.rounds import FLAG_CLOCK, FLAG_LATE, Also, StoredRound

from .clock import Clock
from .clocks import Clocks
from .reasons import Reason, reason_of_gap

BEAT_S = 5.0
# Longer without a beat: a suspended host or a stall, so a time in which nobody looked.
LAPSE_S = 20.0


@dataclass(frozen=True)
class Declared:
    """Rounds of a report's epoch that the agent gave up, just before the round with seq `last` + 1."""

    agent_no: int
    epoch: str
    count: int
    last: int
    said: str


@dataclass
class _Chain:
    """The last round of an agent's run and its slot: the next one's follows from it, see `_follow`."""

    epoch: str
    shown_ms: int
    slot: int


@dataclass
class _Draft:
    """What the commit that is about to happen would make true."""

    offsets: list[tuple[int, int, int]] = field(default_factory=list)
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    chains: dict[int, _Chain] = field(default_factory=dict)


class Book:
    """`entry` before a commit, then `kept` or `failed`."""

    def __init__(self, file: LedgerFile, clock: Clock, clocks: Clocks, interval_s: float) -> None:
        self._file, self._clock, self._clocks = file, clock, clocks
        self.interval_ms = round(interval_s * 1000)
        self._chains: dict[int, _Chain] = {}
        self._draft = _Draft()
        self._since_ms: int | None = None
        self._beat_at = 0.0

    def entry(self, now_ms: int, rounds: Sequence[StoredRound] = (), declared: Sequence[Declared] = ()) -> Also:
        """What goes into the commit that is about to happen at `now_ms`."""
        draft = self._draft = _Draft(self._clocks.take_news(), self._clocks.take_steps())
        slots: dict[int, list[Slot]] = {}
        numbers: dict[tuple[int, str, int], int] = {}
        for stored, shown_ms in zip(rounds, self._times(rounds), strict=True):
            slot = self._follow(draft, stored, shown_ms)
            slots.setdefault(stored.agent_no, []).append((slot, bool(stored.flags & FLAG_LATE)))
            numbers[stored.agent_no, stored.epoch, stored.seq] = slot
        gaps: list[Gap] = [(agent_no, a, b, Reason.CLOCK) for agent_no, a, b in draft.steps]
        gaps += [gap for one in declared if (gap := self._gap(one, numbers)) is not None]
        return self._file.entry(Entry(self.interval_ms, self._up(now_ms), draft.offsets, gaps, slots))

    def kept(self) -> None:
        """The commit happened."""
        self._chains |= self._draft.chains

    def failed(self) -> None:
        """The commit did not happen: from the last beat until the next commit nobody kept anything."""
        self._since_ms = None
        self._clocks.put_back(self._draft.offsets, self._draft.steps)

    def _times(self, rounds: Sequence[StoredRound]) -> list[int]:
        """When each round started. Of one whose clock was no use we know when it came, and its number in the row."""
        newest = {(r.agent_no, r.epoch): r.seq for r in rounds}  # they come in the order of their numbers
        return [
            r.received_ms - (newest[r.agent_no, r.epoch] - r.seq) * self.interval_ms
            if r.flags & FLAG_CLOCK
            else self._clocks.shown_ms(r)
            for r in rounds
        ]

    def _follow(self, draft: _Draft, stored: StoredRound, shown_ms: int) -> int:
        """The slot of a round: so many after that of the round before as intervals have passed.

        By its time alone, the rounds of an agent whose phase lies at the edge of a slot would fall twice into one and
        miss the next, for a few milliseconds. More than one slot away from its time, its time decides.
        """
        slot = shown_ms // self.interval_ms
        before = draft.chains.get(stored.agent_no) or self._chains.get(stored.agent_no)
        if before is not None and before.epoch == stored.epoch:
            passed = round((shown_ms - before.shown_ms) / self.interval_ms)
            # Legacy agents report target by target: several moments within one interval, each where its time puts it.
            slot = before.slot + passed if passed and abs(before.slot + passed - slot) <= 1 else slot
        draft.chains[stored.agent_no] = _Chain(stored.epoch, shown_ms, slot)
        return slot

    def _gap(self, declared: Declared, numbers: dict[tuple[int, str, int], int]) -> Gap | None:
        slot = numbers.get((declared.agent_no, declared.epoch, declared.last + 1))
        if slot is None:
            return None
        from_ms = (slot - declared.count) * self.interval_ms
        return declared.agent_no, from_ms, slot * self.interval_ms, reason_of_gap(declared.said)

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
