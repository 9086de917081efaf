"""Sample stores that fail where they are told to, and stores from which a guard was taken away.

They stand in for `SqliteRounds` in a process of the tests; the product knows nothing of them.
Must not know: agents, sockets.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pingmon.store import compaction
from pingmon.store.compaction import Part
from pingmon.store.rounds import Also, SqliteRounds, StoredRound, StoreError

# A thread of the pool must sleep in the kernel; a patched `time.sleep` would look for green threads to run instead.
_sleep = time.sleep
POINTS = ("before the insert", "between insert and cursor", "before COMMIT", "after COMMIT")
Cursors = Mapping[tuple[int, str], int]


@dataclass(frozen=True)
class Failpoint:
    """Kill the process at `point` of the commit number `commit` (from 1), or of the compaction of that number."""

    commit: int
    point: str
    in_compaction: bool = False


class FailingRounds(SqliteRounds):
    """Kills its own process inside a commit, between two statements of the transaction or beside them."""

    failpoint: Failpoint | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._commits = self._compactions = self._statements = self._at = 0

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        self._commits += 1
        with self._dying(self._commits, len(rounds) + len(cursors), in_compaction=False):
            super().write(rounds, cursors, now_ms, also)

    def compact(self, part: Part) -> int:
        """See RoundStore."""
        self._compactions += 1
        with self._dying(self._compactions, 3, in_compaction=True):
            return super().compact(part)

    @contextlib.contextmanager
    def _dying(self, number: int, statements: int, in_compaction: bool) -> Iterator[None]:
        """Die in what follows, or behind it, if it is the one."""
        due = self.failpoint is not None and (self.failpoint.commit, self.failpoint.in_compaction) == (
            number,
            in_compaction,
        )
        if due:
            self._at = random.Random(number).randint(2, max(2, statements))
            self._writer.set_trace_callback(self._statement)
        yield
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    def _statement(self, text: str) -> None:
        """SQLite is about to run this."""
        assert self.failpoint is not None
        word, point = text.split(None, 1)[0].upper(), self.failpoint.point
        if word == "BEGIN":
            return
        self._statements += 1
        due = {POINTS[0]: self._statements == 1, POINTS[1]: self._statements == self._at}
        if due.get(point, False) or (word == "COMMIT" and point in POINTS[1:3]):
            os.kill(os.getpid(), signal.SIGKILL)


class SlowRounds(SqliteRounds):
    """Each commit takes `delay_s` longer, as on a disk that is nearly dead."""

    delay_s = 0.0

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        _sleep(self.delay_s)
        super().write(rounds, cursors, now_ms, also)


class SingleRounds(SlowRounds):
    """A guard removed: the reports of each agent take a commit of their own."""

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        for (agent_no, epoch), upto in cursors.items():
            own = [r for r in rounds if (r.agent_no, r.epoch) == (agent_no, epoch)]
            super().write(own, {(agent_no, epoch): upto}, now_ms)
        super().write([], {}, now_ms, also)


class EarlyRounds(FailingRounds):
    """A guard removed: says that it has committed what it commits with the next call only."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._late: tuple[Sequence[StoredRound], Cursors, int, Also | None] | None = None

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        late, self._late = self._late, (rounds, cursors, now_ms, also)
        if late is not None:
            super().write(*late)


class TornRounds(FailingRounds):
    """A guard removed: cursors are committed in a transaction of their own, ahead of the rounds."""

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        super().write([], cursors, now_ms)
        super().write(rounds, {}, now_ms, also)


class UnswappedRounds(FailingRounds):
    """A guard removed: a chunk goes in and what it replaces goes out in transactions of their own."""

    def compact(self, part: Part) -> int:
        """See RoundStore."""
        self._compactions += 1
        with self._dying(self._compactions, 3, in_compaction=True):
            return compaction.compact(self._writer, part)


class LyingRounds(SqliteRounds):
    """A guard removed: a commit that failed is not told to anybody."""

    def write(self, rounds: Sequence[StoredRound], cursors: Cursors, now_ms: int, also: Also | None = None) -> None:
        """See RoundStore."""
        with contextlib.suppress(StoreError):
            super().write(rounds, cursors, now_ms, also)


class ForgetfulRounds(SqliteRounds):
    """A guard removed: at its start it knows nothing of what agents have delivered before."""

    def cursors(self) -> dict[tuple[int, str], int]:
        """See RoundStore."""
        return {}


STORES: dict[str, type[SqliteRounds]] = {
    "slow": SlowRounds,
    "single": SingleRounds,
    "failing": FailingRounds,
    "early": EarlyRounds,
    "torn": TornRounds,
    "lying": LyingRounds,
    "forgetful": ForgetfulRounds,
}
