"""The last 30 minutes of rounds in memory, numbered without holes: what the server has not got yet can still be had.

Age goes by a clock that the caller hands in (boot time), so a clock step can neither wipe nor immortalise a round.
Must not know: the network, the server's answers. Safe for one writer and one reader thread.
"""

from __future__ import annotations

import secrets
import threading
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from .wire.contract import Round

KEEP_S = 1800.0
# A cap beside the age: 30 minutes of 8,000 targets each second would be 58 MB of samples.
MAX_SAMPLES = 8_000_000
_ROUND_BYTES = 96  # what a round costs on the wire beside its samples: seq, t, rev, disturbed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one report may hold."""

    rounds: int = 64
    samples: int = 8_000
    bytes: int = 65_536


@dataclass(frozen=True, kw_only=True)
class _Kept:
    at: float
    round: Round


class Ring:
    """Rounds by seq. `append` numbers them from 1 per epoch; `after` reads on from a seq; old ones expire."""

    def __init__(self, now: Callable[[], float], keep_s: float = KEEP_S, max_samples: int = MAX_SAMPLES) -> None:
        self._now, self._keep_s, self._max_samples = now, keep_s, max_samples
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque()
        self._samples = 0
        self._acked = 0
        self.epoch = secrets.token_hex(8)
        self.last_seq = 0
        self.dropped = 0  # samples that expired before the server had them

    def append(self, *, started_ms: int, revision: int, samples: array[int], disturbed: bool) -> Round:
        """Number a finished round and keep it."""
        with self._lock:
            self.last_seq += 1
            kept = Round(
                epoch=self.epoch,
                seq=self.last_seq,
                started_ms=started_ms,
                revision=revision,
                samples=samples,
                disturbed=disturbed,
            )
            self._kept.append(_Kept(at=self._now(), round=kept))
            self._samples += len(samples)
            self._expire()
            return kept

    def after(self, seq: int, limits: Limits) -> list[Round]:
        """The oldest kept rounds above `seq`, in order, as many as `limits` allow but one at least if there is any.

        If the first one is not `seq + 1`, those between have expired.
        """
        with self._lock:
            self._expire()
            first = max(0, seq + 1 - self._first_seq()) if self._kept else 0
            if len(self._kept) - first == 1:
                return [self._kept[first].round]  # as nearly always, and then its size does not matter
            rounds: list[Round] = []
            samples = size = 0
            for place in range(first, len(self._kept)):
                candidate = self._kept[place].round
                samples += len(candidate.samples)
                size += _ROUND_BYTES + _size_at_most(candidate.samples)
                if rounds and (len(rounds) >= limits.rounds or samples > limits.samples or size > limits.bytes - 256):
                    break
                rounds.append(candidate)
            return rounds

    def ack(self, seq: int) -> None:
        """The server has committed up to `seq`. Rounds stay until they expire: a restored server may ask again."""
        with self._lock:
            self._acked = min(seq, self.last_seq)

    def waiting(self) -> int:
        """Samples not yet acknowledged."""
        with self._lock:
            first = max(0, self._acked + 1 - self._first_seq()) if self._kept else 0
            return sum(len(self._kept[place].round.samples) for place in range(first, len(self._kept)))

    def new_epoch(self) -> None:
        """Number what is not acknowledged anew under a fresh epoch: the old numbers are known to be taken."""
        with self._lock:
            self.epoch, self.last_seq = secrets.token_hex(8), 0
            fresh = [k for k in self._kept if k.round.seq > self._acked]
            self._acked = 0
            self._kept.clear()
            for kept in fresh:
                self.last_seq += 1
                self._kept.append(replace(kept, round=replace(kept.round, epoch=self.epoch, seq=self.last_seq)))
            self._samples = sum(len(k.round.samples) for k in self._kept)

    def _first_seq(self) -> int:
        return self._kept[0].round.seq

    def _expire(self) -> None:
        oldest = self._now() - self._keep_s
        while self._kept and (self._kept[0].at < oldest or self._samples > self._max_samples):
            gone = self._kept.popleft().round
            self._samples -= len(gone.samples)
            if gone.seq > self._acked:
                self.dropped += len(gone.samples)


def _size_at_most(samples: array[int]) -> int:
    """Bytes as a list of numbers in compact JSON, if each were as long as the longest."""
    if not samples:
        return 2
    return 2 + len(samples) * (1 + max(len(str(max(samples))), len(str(min(samples)))))
