"""Back-pressure: how much work waits for the committer, and when to tell agents to keep their data for a while.

Must not know: what waits, the database.
"""

from __future__ import annotations

import math

MAX_WAITING_SAMPLES = 20_000_000  # 80 MB, whatever the speed
MAX_QUEUE_S = 2.0  # above this much work agents are told to come back; their data is as safe where it is
MAX_RETRY_AFTER_S = 60
# A smaller commit says nothing about the cost of a sample: most of its time is that of the commit itself.
TELLING_SAMPLES = 10_000
# Until the first telling commit: two microseconds a sample, what a small host needs.
FIRST_GUESS_S = 2e-6
_WEIGHT = 0.2


class Pressure:
    """Kept up by ingest: `add` what waits, `remove` it once answered, `took` after each commit."""

    def __init__(self) -> None:
        self.waiting_samples = 0
        self._s_per_sample = FIRST_GUESS_S

    def add(self, samples: int) -> None:
        """These wait now."""
        self.waiting_samples += samples

    def remove(self, samples: int) -> None:
        """These wait no longer."""
        self.waiting_samples -= samples

    def took(self, samples: int, seconds: float) -> None:
        """A commit of so many samples took so long."""
        if samples >= TELLING_SAMPLES:
            self._s_per_sample += _WEIGHT * (seconds / samples - self._s_per_sample)

    @property
    def work_s(self) -> float:
        """Seconds of work that wait."""
        return self.waiting_samples * self._s_per_sample

    def retry_after_s(self, samples: int) -> int | None:
        """Seconds after which to come back with so many samples; None: they are taken now.

        An empty queue takes everything: what one report costs is no reason to send it away.
        """
        too_much = self.waiting_samples + samples > MAX_WAITING_SAMPLES
        if not too_much and self.work_s <= MAX_QUEUE_S:
            return None
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self.work_s)))
