"""What is too old: a pure plan, then carried out by the committer, batch by batch."""

from __future__ import annotations

import logging

from pingmon.concurrency import run_blocking
from pingmon.config import RetentionSection
from pingmon.store.directory import Directory
from pingmon.store.ledger import LedgerFile
from pingmon.store.rounds import RoundStore

from .clock import Clock
from .completeness import KEEP_MS as LEDGER_KEEP_MS
from .ingest import Ingest
from .recent import Recent

# A round can be as old as the agent's ring when it arrives.
SET_SLACK_MS = 3_600_000
log = logging.getLogger("pingmon.retention")


def oldest_kept_ms(now_ms: int, hours: float) -> int:
    """What is kept for so many hours and began before this may go."""
    return now_ms - round(hours * 3_600_000)


class Retention:
    """Run by the scheduler."""

    def __init__(
        self,
        directory: Directory,
        store: RoundStore,
        ingest: Ingest,
        recent: Recent,
        clock: Clock,
        keep: RetentionSection,
    ) -> None:
        self._directory, self._store, self._ingest = directory, store, ingest
        self._recent, self._clock, self._keep = recent, clock, keep

    def run(self) -> None:
        """Trim memory now, and ask the committer to drop old rows between its commits."""
        now = self._clock.wall_ms()
        self._recent.trim(now)
        with self._directory.transaction() as tx:
            tx.drop_sets_replaced_before(oldest_kept_ms(now, self._keep.raw_hours) - SET_SLACK_MS)
        self._ingest.between_commits(self._drop_batch)
        self._ingest.between_commits(self._shorten_ledger)

    def _shorten_ledger(self) -> None:
        now = self._clock.wall_ms()
        run_blocking(self._store.write, [], {}, now, LedgerFile.drop_before(now - LEDGER_KEEP_MS))

    def _drop_batch(self) -> None:
        dropped = run_blocking(self._store.drop_before, oldest_kept_ms(self._clock.wall_ms(), self._keep.raw_hours))
        if dropped:
            log.info("dropped %d rounds older than %g h", dropped, self._keep.raw_hours)
            self._ingest.between_commits(self._drop_batch)
        else:
            self._ingest.forget_old_epochs()
            self._drop_rolled()

    def _drop_rolled(self) -> None:
        now, keep = self._clock.wall_ms(), self._keep
        minutes_ms, hours_ms = oldest_kept_ms(now, 24 * keep.minute_days), oldest_kept_ms(now, 24 * keep.hour_days)
        if run_blocking(self._store.drop_rolled, minutes_ms, hours_ms):
            self._ingest.between_commits(self._drop_rolled)
        else:
            self._give_back()

    def _give_back(self) -> None:
        if run_blocking(self._store.give_back):
            self._ingest.between_commits(self._give_back)
