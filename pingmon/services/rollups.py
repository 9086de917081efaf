"""When minutes and hours are worked out: whole hours that ended an hour ago, and again those that late rounds came to.

Reading and working out happen beside the committer, only the result is saved by it. Must not know: SQL, quantiles.
"""

from __future__ import annotations

import logging
from functools import partial

from pingmon.concurrency import run_blocking
from pingmon.store.rolling import DueHour, RolledHour
from pingmon.store.rounds import RoundStore, StoreError

from .clock import Clock
from .compaction import compactable_before_ms
from .ingest import Ingest
from .registry import Registry

log = logging.getLogger("pingmon.rollups")


class RollUps:
    """Run by the scheduler."""

    def __init__(self, store: RoundStore, registry: Registry, ingest: Ingest, clock: Clock) -> None:
        self._store, self._registry, self._ingest, self._clock = store, registry, ingest, clock

    def run(self) -> None:
        """Work out what is due and hand it to the committer."""
        for due in run_blocking(self._store.hours_due, compactable_before_ms(self._clock.wall_ms())):
            try:
                rolled = run_blocking(self._store.work_out, due, self._sets(due))
            except StoreError as error:
                # One damaged hour must not keep all later ones from being worked out.
                log.error("an hour could not be worked out agent=%d hour=%d: %s", due.agent_no, due.hour, error)  # noqa: TRY400
            else:
                self._ingest.between_commits(partial(self._save, rolled))

    def _sets(self, due: DueHour) -> dict[int, tuple[int, ...]]:
        views = {revision: self._registry.target_set(due.agent_no, revision) for revision in due.revisions}
        return {revision: view.target_ids for revision, view in views.items() if view is not None}

    def _save(self, rolled: RolledHour) -> None:
        run_blocking(self._store.save_rolled, rolled)
