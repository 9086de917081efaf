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

from .wire import codec
from .wire.contract import MAX_SAMPLES_PER_REPORT, Round

KEEP_S = 1800.0
# A cap beside the age: 30 minutes of 8,000 targets each second would be 58 MB of samples.
MAX_SAMPLES = 8_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one report may hold."""

    rounds: int = 64
    samples: int = MAX_SAMPLES_PER_REPORT
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
        self._agent_id = ""
        self.epoch = secrets.token_hex(8)
        self.last_seq = 0
        self.dropped = 0  # samples that expired before the server had them

    def belong_to(self, agent_id: str) -> None:
        """From now on these are rounds of `agent_id`. Those of another one go: its set numbers mean other targets."""
        with self._lock:
            if self._agent_id not in ("", agent_id):
                self.dropped += sum(len(k.round.samples) for k in self._kept if k.round.seq > self._acked)
                self._kept.clear()
                self._samples = 0
            self._agent_id = agent_id

    def append(
        self, *, started_ms: int, revision: int, samples: array[int], disturbed: bool, agent_id: str = ""
    ) -> Round | None:
        """Number a finished round and keep it; None if its targets were those of another `agent_id` ("": anybody's)."""
        with self._lock:
            if agent_id and self._agent_id not in ("", agent_id):
                return None
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
                size += codec.round_size(candidate.samples)
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
