"""What happens by the clock (APScheduler): compaction, retention, bookkeeping. Static jobs, so no job store."""

from __future__ import annotations

import logging

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler

from pingmon.services.bundle import Services

log = logging.getLogger("pingmon.jobs")
RETENTION_EVERY_S = 300
COMPACTION_EVERY_S = 300
SEEN_EVERY_S = 60
VERSIONS_EVERY_S = 5
LOOK_EVERY_S = 5
EXPIRY_EVERY_S = 600


class Jobs:
    """Started with the server, stopped with it."""

    def __init__(self, services: Services) -> None:
        self.failures, self._services = 0, services
        # APScheduler's own lines say "added job" and the like at every start.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 60}
        )
        self._scheduler.add_job(services.retention.run, "interval", seconds=RETENTION_EVERY_S, id="retention")
        self._scheduler.add_job(self._tidy, "interval", seconds=COMPACTION_EVERY_S, id="compaction")
        self._scheduler.add_job(services.registry.flush_seen, "interval", seconds=SEEN_EVERY_S, id="seen")
        self._scheduler.add_job(services.registry.flush_versions, "interval", seconds=VERSIONS_EVERY_S, id="versions")
        self._scheduler.add_job(services.refusals.flush, "interval", seconds=SEEN_EVERY_S, id="refusals")
        self._scheduler.add_job(services.look, "interval", seconds=LOOK_EVERY_S, id="look")
        self._scheduler.add_job(services.registry.expire_pending, "interval", seconds=EXPIRY_EVERY_S, id="expiry")
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """End; a job that runs may finish."""
        self._scheduler.shutdown(wait=False)

    def _tidy(self) -> None:
        """Roll-ups first: raw rounds are read faster than chunks."""
        try:
            self._services.rollups.run()
        finally:
            self._services.compaction.run()

    def _failed(self, event: JobExecutionEvent) -> None:
        self.failures += 1
        log.error("job failed job=%s: %s", event.job_id, event.exception)
