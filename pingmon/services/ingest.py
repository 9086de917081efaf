"""Ingest: a report becomes committed rounds, then an acknowledgement. Nothing is acknowledged that is not committed.

`submit` checks a report and waits; one committer takes everything that waits, writes it in one transaction and only
then lets the waiting go on. Numbers up to the committed one of an epoch are duplicates by definition.
Must not know: sockets, Flask.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pingmon.concurrency import run_blocking
from pingmon.store.directory import DirectoryError
from pingmon.store.rounds import FLAG_CLOCK, FLAG_DISTURBED, FLAG_LATE, RoundStore, StoredRound, StoreError
from pingmon_agent.wire.contract import ErrorCode, Report, Round, State, WireError

from .book import Book
from .clock import Clock
from .clocks import Clocks
from .group import Fresh, Waiting
from .health import SAMPLES, Health
from .pressure import Pressure
from .registry import Registry

Json = dict[str, Any]
Sink = Callable[[StoredRound, tuple[int, ...]], None]
log = logging.getLogger("pingmon.ingest")

GROUP_S = 0.1  # how long a commit gathers reports; an ack waits at most this and the commit itself
RETRY_AFTER_S = 5
LOG_EVERY_S = 60.0  # a full disk fails ten times a second, and the log may be on the same disk
LATE_AFTER_ROUNDS = 3
GONE = "this agent is not approved any more; shake hands again"
AHEAD_MS, BEHIND_MS = 60_000, 86_400_000


@dataclass
class Counters:
    """For metrics; `rejected` by error code."""

    samples: int = 0
    duplicates: int = 0
    late: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    errors: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


class Ingest:
    """One per process; `run` is the committer and belongs in a thread of its own."""

    def __init__(
        self,
        store: RoundStore,
        registry: Registry,
        clock: Clock,
        sinks: Sequence[Sink],
        book: Book,
        clocks: Clocks,
        health: Health | None = None,
    ) -> None:
        self._store, self._registry, self._clock, self._sinks = store, registry, clock, sinks
        self._book, self._clocks = book, clocks
        self._health = health or Health(clock, lambda: None)
        self._logged_at = -LOG_EVERY_S
        self._cursors = run_blocking(store.cursors)
        self._queue: list[Waiting] = []
        self._jobs: list[Callable[[], object]] = []
        self.pressure = Pressure()
        self._wake, self._stopping = threading.Event(), False
        self.counters = Counters()

    # -- agents' side --

    def upto(self, agent_no: int, epoch: str) -> int:
        """Highest committed seq of this run of the agent; 0 if there is none."""
        return self._cursors.get((agent_no, epoch), 0)

    def submit(self, agent_no: int, report: Report) -> Json:
        """Check a report, wait for its commit, return the acknowledgement. Raises WireError for what is wrong in it."""
        self._check_sequence(agent_no, report)
        if report.sent_ms is not None:
            self._clocks.heard(agent_no, report.sent_ms)
        self._clocks.heard_round(agent_no, report.rounds[-1].started_ms)
        rounds = [self._stored(agent_no, r) for r in report.rounds]
        return self._commit(Waiting(agent_no, report.epoch, rounds, report.gap))

    def submit_rounds(self, agent_no: int, epoch: str, rounds: list[tuple[StoredRound, tuple[int, ...]]]) -> Json:
        """The same for rounds that were put together elsewhere (legacy agents); see `stamp`."""
        return self._commit(Waiting(agent_no, epoch, rounds))

    def reject(self, code: ErrorCode, samples: int = 1) -> None:
        """Count what was refused before it came here."""
        self.counters.rejected[code] = self.counters.rejected.get(code, 0) + samples

    def _check_sequence(self, agent_no: int, report: Report) -> None:
        expected = self.upto(agent_no, report.epoch) + 1
        if report.gap is not None and report.gap[0] <= expected:
            expected = max(expected, report.gap[1] + 1)
        seqs = [r.seq for r in report.rounds]
        if seqs[0] > expected or seqs[-1] - seqs[0] != len(seqs) - 1:
            raise WireError(ErrorCode.SEQ_GAP, f"send from seq {expected} on, or declare the gap")

    def _stored(self, agent_no: int, r: Round) -> tuple[StoredRound, tuple[int, ...]]:
        known = self._registry.target_set(agent_no, r.revision)
        if known is None:
            raise WireError(ErrorCode.TARGET, f"target set {r.revision} was never given to this agent")
        if len(known.target_ids) != len(r.samples):
            raise WireError(
                ErrorCode.BATCH, f"set {r.revision} has {len(known.target_ids)} columns, not {len(r.samples)}"
            )
        return self.stamp(agent_no, r.epoch, r.seq, r.started_ms, r.revision, r.samples, r.disturbed), known.target_ids

    def stamp(
        self, agent_no: int, epoch: str, seq: int, started_ms: int, revision: int, samples: array[int], disturbed: bool
    ) -> StoredRound:
        """A row for the store. A clock that is hours off must not decide how long a row is kept: then ours counts.

        A round that started more than LATE_AFTER_ROUNDS intervals ago, by the agent's clock as far as it is measured,
        is late.
        """
        now = self._clock.wall_ms()
        wrong_clock = not now - BEHIND_MS <= started_ms <= now + AHEAD_MS
        age_ms = self._clocks.age_ms(agent_no, started_ms)
        if age_ms is None:
            age_ms = 0 if wrong_clock else now - started_ms
        late = age_ms > LATE_AFTER_ROUNDS * self._registry.interval_s * 1000
        return StoredRound(
            agent_no=agent_no,
            epoch=epoch,
            seq=seq,
            started_ms=now if wrong_clock else started_ms,
            revision=revision,
            flags=FLAG_DISTURBED * disturbed | FLAG_CLOCK * wrong_clock | FLAG_LATE * late,
            received_ms=now,
            samples=samples,
        )

    def _commit(self, waiting: Waiting) -> Json:
        samples = sum(len(r.samples) for r, _ in waiting.rounds)
        if self._stopping:
            return _busy("the server is stopping", RETRY_AFTER_S)
        retry_after_s = self.pressure.retry_after_s(samples)
        if retry_after_s is not None:
            return _busy("more waits to be stored than fits", retry_after_s)
        self.pressure.add(samples)
        self._queue.append(waiting)
        self._wake.set()
        waiting.done.wait()
        self.pressure.remove(samples)
        return waiting.answer

    # -- committer's side --

    def run(self) -> None:
        """Commit what comes in until `stop`; what waits then is still committed."""
        while not self._stopping or self._queue:
            self._wake.wait()
            self._wake.clear()
            time.sleep(0 if self._stopping else GROUP_S)
            self._commit_group()
            for job in self._take_jobs():
                self._guarded(job)

    def stop(self) -> None:
        """Take nothing more; `run` returns once all that waits is committed."""
        self._stopping = True
        self._wake.set()

    def forget_old_epochs(self) -> None:
        """Drop cursors the store has dropped; only between commits, when memory and store say the same."""
        self._cursors = run_blocking(self._store.cursors)

    def between_commits(self, job: Callable[[], object]) -> None:
        """Have `job` run by the committer, for the sample store has one writer only."""
        self._jobs.append(job)
        self._wake.set()

    def _take_jobs(self) -> list[Callable[[], object]]:
        jobs, self._jobs = self._jobs, []
        return jobs

    def _commit_group(self) -> None:
        waiting_now, self._queue = self._queue, []
        if not waiting_now:
            return
        group = self._welcome(waiting_now)
        if group and not self._guarded(lambda: self._write(group)):
            for waiting in group:
                waiting.answer = _busy("the database cannot be written", RETRY_AFTER_S)
        for waiting in waiting_now:
            waiting.done.set()

    def _welcome(self, group: list[Waiting]) -> list[Waiting]:
        """Those whose agents are approved at this moment: after a revocation nothing is committed any more."""
        try:
            self._registry.catch_up()
        except DirectoryError:
            log.debug("the directory cannot be read; the last known agents stay in force")
        agents = self._registry.snapshot.agents
        for waiting in group:
            view = agents.get(waiting.agent_no)
            if view is None or view.state is not State.APPROVED or view.revoked:
                waiting.answer = {"ok": False, "code": ErrorCode.STATE, "message": GONE, "retry_after_s": 30}
        return [waiting for waiting in group if not waiting.answer]

    def _guarded(self, work: Callable[[], object]) -> bool:
        """The committer must outlive every fault: it is counted and logged, and nothing is acknowledged."""
        try:
            work()
        except StoreError as error:
            self.counters.errors += 1
            self._failing(str(error))
        except Exception:
            self.counters.errors += 1
            log.exception("nothing stored, agents keep their data")
        else:
            return True
        return False

    def _store_all(self, fresh: Fresh) -> None:
        now, rounds = self._clock.wall_ms(), fresh.stored
        try:
            run_blocking(self._store.write, rounds, fresh.cursors, now, self._book.entry(now, rounds, fresh.declared))
        except BaseException:
            self._book.failed()
            raise
        self._book.kept()
        if self._health.note(SAMPLES, None):
            log.info("the sample database can be written again")

    def _failing(self, reason: str) -> None:
        news, now = self._health.note(SAMPLES, reason), self._clock.monotonic()
        if news or now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.error("nothing stored, agents keep their data: %s", reason)

    def beat(self) -> None:
        """Write that the server is up even if no agent reports, so that a fault and its end show by themselves."""
        self.between_commits(lambda: self._store_all(Fresh()))

    def _write(self, group: list[Waiting]) -> None:
        fresh, began = Fresh.of(group, self._cursors), self._clock.monotonic()
        self._store_all(fresh)
        seconds = self._clock.monotonic() - began
        self._committed(group, fresh, seconds)
        self.pressure.took(fresh.samples, self._clock.monotonic() - began)

    def _committed(self, group: list[Waiting], fresh: Fresh, seconds: float) -> None:
        self._cursors |= fresh.cursors
        for waiting in group:
            waiting.answer |= {"ok": True, "upto": fresh.cursors[waiting.agent_no, waiting.epoch]}
            self.counters.duplicates += waiting.answer["dup"]
        for stored, target_ids in fresh.rounds:
            for sink in self._sinks:
                sink(stored, target_ids)
            self.counters.late += bool(stored.flags & FLAG_LATE)
        self.counters.samples += fresh.samples
        self.counters.commits += 1
        self.counters.commit_seconds += seconds


def _busy(why: str, retry_after_s: int) -> Json:
    return {
        "ok": False,
        "code": ErrorCode.SERVER,
        "message": f"{why}; keep the data and try again",
        "retry_after_s": retry_after_s,
    }
