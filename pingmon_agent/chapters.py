"""A chapter of the ring: the rounds of one epoch, their numbers, and how far the server has them.

Must not know: files, clocks, locks, other chapters.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

from .wire import codec
from .wire.contract import MAX_SAMPLES_PER_REPORT, Round


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one report may hold."""

    rounds: int = 64
    samples: int = MAX_SAMPLES_PER_REPORT
    bytes: int = 65_536


@dataclass(kw_only=True, slots=True)
class Kept:
    """A round, when it came (seconds on the boot's clock), and the number of the segment it is in (0: in none)."""

    at: float
    round: Round
    filed: int = 0


def fresh_epoch() -> str:
    """A name that no epoch had before."""
    return secrets.token_hex(8)


@dataclass(kw_only=True)
class Chapter:
    """`on_file`: a restart might go on with this epoch, so no number may be given that is not on file too. `settled`:
    nothing of it is to be sent, as far as is known. `sent`: nothing above it has left this host."""

    epoch: str = field(default_factory=fresh_epoch)
    kept: deque[Kept] = field(default_factory=deque)
    last_seq: int = 0
    acked: int = 0
    sent: int = 0
    on_file: bool = False
    settled: bool = False

    def place(self, seq: int) -> int:
        """Index of the oldest kept round above `seq`."""
        if not self.kept:
            return 0
        guess = seq + 1 - self.kept[0].round.seq
        if 0 <= guess < len(self.kept) and self.kept[guess].round.seq == seq + 1:
            return guess  # as nearly always: there is no hole
        return bisect_right(self.kept, seq, key=lambda kept: kept.round.seq)

    def after(self, seq: int, limits: Limits) -> list[Round]:
        """The oldest kept rounds above `seq`, without a hole between them, within `limits` but one at least."""
        first = self.place(seq)
        if len(self.kept) - first == 1:
            return [self.kept[first].round]  # as nearly always, and then its size does not matter
        rounds: list[Round] = []
        samples = size = 0
        for place in range(first, len(self.kept)):
            candidate = self.kept[place].round
            samples += len(candidate.samples)
            size += codec.round_size(candidate.samples)
            full = len(rounds) >= limits.rounds or samples > limits.samples or size > limits.bytes - 256
            if rounds and (full or candidate.seq != rounds[-1].seq + 1):
                break
            rounds.append(candidate)
        return rounds

    def take(self, seq: int, acked: int | None) -> None:
        """A block on file says that `seq` was given, and perhaps what was acknowledged."""
        self.last_seq = max(self.last_seq, seq)
        self.acked = self.acked if acked is None else acked

    def add(self, kept: Kept) -> int:
        """Keep a round from a file, and return its number of samples; 0 if it is here already."""
        if self.kept and kept.round.seq <= self.kept[-1].round.seq:
            return 0
        self.kept.append(kept)
        return len(kept.round.samples)

    def waiting(self) -> int:
        """Samples not yet acknowledged."""
        return sum(len(self.kept[place].round.samples) for place in range(self.place(self.acked), len(self.kept)))

    def holds_before(self, seq: int) -> bool:
        """Whether an older round than `seq` is kept: what is missing between them was not too old."""
        return bool(self.kept) and self.kept[0].round.seq < seq
