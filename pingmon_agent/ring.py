"""The last 30 minutes of rounds, numbered without holes: what the server has not got yet can still be had.

All of it is in memory, and with a journal on files too, each round before anybody can send it. A restart reads it back
and goes on with the epoch if every number that was given is known; else the old epoch becomes a closed chapter, which
is offered to the server first and under its own numbers, so that nothing comes twice. `epoch` is the one offered now.
Age goes by a clock that the caller hands in (boot time), so a clock step can neither wipe nor immortalise a round.
Must not know: the network, the server's answers, what a file looks like. Safe for one writer and one reader thread.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from .chapters import Chapter, Kept, Limits
from .journal import Journal
from .loading import Found
from .segments import Block, Kind
from .wire.contract import Round

__all__ = ["KEEP_S", "MAX_SAMPLES", "Limits", "Ring"]
KEEP_S = 1800.0
# A cap beside the age: 30 minutes of 8,000 targets each second would be 58 MB of samples.
MAX_SAMPLES = 8_000_000


class Ring:
    """Rounds by seq. `append` numbers them from 1 per epoch; `after` reads on from a seq; old ones expire."""

    def __init__(
        self,
        now: Callable[[], float],
        keep_s: float = KEEP_S,
        max_samples: int = MAX_SAMPLES,
        journal: Journal | None = None,
    ) -> None:
        """Reads back what `journal` has; raises BusyError if its directory is another agent's."""
        self._now, self._keep_s, self._max_samples, self._journal = now, keep_s, max_samples, journal
        self._lock = threading.Lock()
        self._chapters: deque[Chapter] = deque([Chapter()])
        self._samples = 0
        self._agent_id = ""
        self.dropped = 0  # samples that expired before the server had them
        if journal is not None and (found := journal.start(now())) is not None:
            self._adopt(found)
            self._expire()

    # -- what the server is offered --

    @property
    def epoch(self) -> str:
        """The epoch that is offered to the server now: the oldest that it may lack something of."""
        return self.standing()[0]

    @property
    def last_seq(self) -> int:
        """The highest number given in that epoch."""
        return self.standing()[1]

    def standing(self) -> tuple[str, int]:
        """(epoch, last_seq) of the same moment."""
        with self._lock:
            offered = self._offered()
            return offered.epoch, offered.last_seq

    def after(self, seq: int, limits: Limits) -> list[Round]:
        """The oldest kept rounds above `seq`, in order, as many as `limits` allow but one at least if there is any.

        If the first one is not `seq + 1`, those between have expired or were damaged on file. They count as sent.
        """
        with self._lock:
            self._expire()
            offered = self._offered()
            rounds = offered.after(seq, limits)
            offered.sent = max(offered.sent, rounds[-1].seq if rounds else 0)
            return rounds

    def was_set_back(self, upto: int, epoch: str) -> bool:
        """Whether the server has rounds of the offered epoch that cannot be ours: nobody here has sent so many."""
        with self._lock:
            offered = self._offered()
            return epoch == offered.epoch and upto > offered.sent

    def why_missing(self, seq: int) -> str:
        """Why the round before `seq` is not there: "expired", or "damaged" on file."""
        with self._lock:
            return "damaged" if self._offered().holds_before(seq) else "expired"

    def ack(self, seq: int, epoch: str = "") -> None:
        """The server has committed up to `seq` of `epoch` ("": of the one offered).

        Rounds stay until they expire: a restored server may ask again, by a lower number.
        """
        with self._lock:
            offered = self._offered()
            chapter = next((c for c in self._chapters if c.epoch == epoch), None) if epoch else offered
            if chapter is None:
                return
            before, chapter.acked = chapter.acked, min(seq, chapter.last_seq)
            chapter.settled = chapter.acked >= chapter.last_seq
            if (journal := self._journal) is not None and chapter.acked != before:
                journal.put(self._state(journal, chapter, self._now()), lambda at: self._states(journal, at))

    def offer_again(self) -> None:
        """Offer all epochs that are kept, from the oldest on: whoever answers next may have been restored."""
        with self._lock:
            for chapter in self._chapters:
                chapter.settled = False

    def finish(self, seq: int, epoch: str) -> None:
        """Nothing above `seq` of `epoch` can be sent: if that one is closed, the next one is offered."""
        with self._lock:
            for chapter in list(self._chapters)[:-1]:
                if chapter.epoch == epoch and chapter.place(seq) == len(chapter.kept):
                    chapter.settled = True

    def waiting(self) -> int:
        """Samples not yet acknowledged."""
        with self._lock:
            return sum(chapter.waiting() for chapter in self._chapters)

    def _offered(self) -> Chapter:
        return next((chapter for chapter in self._chapters if not chapter.settled), self._chapters[-1])

    # -- what is measured --

    def belong_to(self, agent_id: str) -> None:
        """From now on these are rounds of `agent_id`. Those of another one go: its set numbers mean other targets."""
        with self._lock:
            if self._agent_id not in ("", agent_id):
                self.dropped += sum(chapter.waiting() for chapter in self._chapters)
                self._chapters = deque([self._chapters[-1]])
                self._chapters[0].kept.clear()
                self._samples = 0
                if self._journal is not None:
                    self._journal.drop_upto(self._journal.highest, self._now())
            self._agent_id = agent_id

    def append(
        self, *, started_ms: int, revision: int, samples: array[int], disturbed: bool, agent_id: str = ""
    ) -> Round | None:
        """Number a finished round and keep it; None if its targets were those of another `agent_id` ("": anybody's)."""
        with self._lock:
            if agent_id and self._agent_id not in ("", agent_id):
                return None
            facts = Round(
                epoch=self._chapters[-1].epoch,
                seq=self._chapters[-1].last_seq + 1,
                started_ms=started_ms,
                revision=revision,
                samples=samples,
                disturbed=disturbed,
            )
            kept = self._keep(Kept(at=self._now(), round=facts))
            self._expire()
            return kept.round

    def _keep(self, kept: Kept) -> Kept:
        current = self._chapters[-1]
        self._file(kept)
        if current.on_file and not kept.filed:
            # A restart would give this number again. So it is given in an epoch that no file knows of.
            current = self._turn_page()
            kept.round = replace(kept.round, epoch=current.epoch, seq=1)
        current.last_seq, current.settled = kept.round.seq, False
        current.kept.append(kept)
        self._samples += len(kept.round.samples)
        return kept

    def new_epoch(self) -> None:
        """The server knows numbers of the offered epoch that we have not sent.

        If it is closed, it has all of them: their last ones were lost here. Else this host was set back, and what is
        not acknowledged is numbered anew under a fresh epoch.
        """
        with self._lock:
            offered = self._offered()
            if offered is not self._chapters[-1]:
                offered.acked, offered.settled = offered.last_seq, True
                return
            fresh = Chapter()
            for kept in list(offered.kept)[offered.place(offered.acked) :]:
                fresh.last_seq += 1
                numbered = replace(kept.round, epoch=fresh.epoch, seq=fresh.last_seq)
                fresh.kept.append(Kept(at=kept.at, round=numbered))
            self._chapters = deque([fresh])
            self._samples = sum(len(kept.round.samples) for kept in fresh.kept)
            self._replace_files(fresh)

    def close(self) -> None:
        """Let go of the files; what is measured after that is in memory only."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()

    def _turn_page(self) -> Chapter:
        self._chapters.append(Chapter())
        return self._chapters[-1]

    def _expire(self) -> None:
        now = self._now()
        oldest, first_file = now - self._keep_s, self._journal.oldest if self._journal is not None else 0
        while True:
            chapter = self._chapters[0]
            if not chapter.kept and len(self._chapters) > 1:
                self._chapters.popleft()
                continue
            if not chapter.kept:
                break
            kept = chapter.kept[0]
            if kept.at >= oldest and self._samples <= self._max_samples and not 0 < kept.filed < first_file:
                break
            chapter.kept.popleft()
            self._samples -= len(kept.round.samples)
            if kept.round.seq > chapter.acked:
                self.dropped += len(kept.round.samples)
        if self._journal is not None:
            self._journal.expire(oldest, now)

    # -- files --

    def _file(self, kept: Kept) -> None:
        journal = self._journal
        if journal is not None and (journal.healthy or self._recover(journal, kept.at)) and self._put(journal, kept):
            self._chapters[-1].on_file = True

    def _put(self, journal: Journal, kept: Kept) -> int:
        block = Block.of(kept.round, at=kept.at, boot=journal.boot, agent_id=self._agent_id)
        kept.filed = journal.put(block, lambda at: self._states(journal, at))
        return kept.filed

    def _states(self, journal: Journal, at: float) -> Iterator[Block]:
        return (self._state(journal, chapter, at) for chapter in self._chapters)

    def _state(self, journal: Journal, chapter: Chapter, at: float) -> Block:
        return Block(
            kind=Kind.STATE,
            boot=journal.boot,
            epoch=chapter.epoch,
            seq=chapter.last_seq,
            at=at,
            agent_id=self._agent_id,
            acked=chapter.acked,
        )

    def _replace_files(self, fresh: Chapter) -> None:
        """Have nothing but `fresh` on file; what it takes the place of goes once it is there."""
        journal = self._journal
        if journal is None:
            return
        before = journal.highest
        journal.end_segment()
        filed = [self._put(journal, kept) for kept in fresh.kept]
        fresh.on_file = any(filed)
        if all(filed):
            journal.drop_upto(before, self._now())

    def _recover(self, journal: Journal, now: float) -> bool:
        """Writing failed before: put on file all that is in memory only, if that works again."""
        found = journal.retry(now)
        if found is None:
            return False
        journal.expire(now - self._keep_s, now)
        if found.anew:
            for kept in (kept for chapter in self._chapters for kept in chapter.kept):
                kept.filed = 0
            self._adopt(found)
        unfiled = [kept for chapter in self._chapters for kept in chapter.kept if not kept.filed]
        if not all(self._put(journal, kept) for kept in unfiled) or not journal.caught_up(now):
            return False
        self._chapters[-1].on_file = True
        return True

    def _adopt(self, found: Found) -> None:
        """Take over what is on file. What had expired when the last block was written was counted then."""
        owner = found.blocks[-1][0].agent_id if found.blocks else ""
        if not found.blocks or self._agent_id not in ("", owner):
            return
        known, begin = {chapter.epoch for chapter in self._chapters}, found.blocks[-1][2] - self._keep_s
        chapters: dict[str, Chapter] = {}
        for block, number, at in found.blocks:
            if block.epoch in known or block.agent_id not in ("", owner):
                continue
            chapter = chapters.setdefault(block.epoch, Chapter(epoch=block.epoch))
            chapter.take(block.seq, block.acked if block.kind is Kind.STATE else None)
            if block.kind is Kind.ROUND and at >= begin:
                self._samples += chapter.add(Kept(at=at, round=block.round(), filed=number))
            chapter.sent = chapter.last_seq  # by the process before this one, for all we know
        self._agent_id = owner
        untouched = len(self._chapters) == 1 and not self._chapters[0].last_seq
        if untouched and found.continues and chapters:
            self._chapters.clear()
        self._chapters.extendleft(reversed(chapters.values()))
        self._chapters[-1].on_file = untouched and found.continues
