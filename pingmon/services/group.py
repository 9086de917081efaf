"""What waits for one commit, and what of it is new. Must not know: how it is checked, committed or answered."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.rounds import StoredRound

from .book import Declared

Cursors = dict[tuple[int, str], int]


@dataclass
class Waiting:
    """One report whose sender waits for `done`, and then reads `answer`."""

    agent_no: int
    epoch: str
    rounds: list[tuple[StoredRound, tuple[int, ...]]]
    gap: tuple[int, int, str] | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class Fresh:
    """What of a group is new: rounds with the targets of their columns, how far each epoch is then, declared gaps."""

    rounds: list[tuple[StoredRound, tuple[int, ...]]] = field(default_factory=list)
    cursors: Cursors = field(default_factory=dict)
    declared: list[Declared] = field(default_factory=list)

    @classmethod
    def of(cls, group: Sequence[Waiting], committed: Mapping[tuple[int, str], int]) -> Fresh:
        """Numbers up to the committed one of an epoch are duplicates, also within the group; noted in the answers."""
        fresh = cls()
        for waiting in group:
            key = (waiting.agent_no, waiting.epoch)
            upto = fresh.cursors.get(key, committed.get(key, 0))
            new = [pair for pair in waiting.rounds if pair[0].seq > upto]
            waiting.answer["dup"] = len(waiting.rounds) - len(new)
            fresh.cursors[key] = max([upto, *(stored.seq for stored, _ in new)])
            fresh.rounds += new
            if waiting.gap is not None and waiting.gap[1] > upto:
                first, last, said = waiting.gap
                fresh.declared.append(Declared(*key, last - max(first - 1, upto), last, said))
        return fresh

    @property
    def stored(self) -> list[StoredRound]:
        """The rounds alone."""
        return [stored for stored, _ in self.rounds]

    @property
    def samples(self) -> int:
        """Their samples."""
        return sum(len(stored.samples) for stored, _ in self.rounds)
