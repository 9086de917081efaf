"""Whether what is decided and measured can be kept: which database fails, since when, and what people are told.

The server goes on without a database that cannot be written: it shows what it knows, acknowledges nothing, and tries
again by itself. Must not know: sockets, Flask, what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .clock import Clock

SAMPLES, DIRECTORY = "samples", "directory"
_LOST = {
    SAMPLES: "what agents measure cannot be stored; they keep their last 30 minutes and send them once it can",
    DIRECTORY: "nothing about agents, targets and users can be changed; what was decided before stays in force",
}


@dataclass(frozen=True)
class Trouble:
    """One database that fails, since `since_ms`; `reason` in the words of whoever noticed."""

    database: str
    reason: str
    since_ms: int

    @property
    def sentence(self) -> str:
        """For pages: what it means, why, and what to do."""
        return (
            f"The {self.database} database cannot be written ({self.reason}): {_LOST[self.database]}. "
            "Make room on its disk or bring the disk back; the server goes on by itself."
        )


class Health:
    """`directory` asks for the reason why the directory fails, None while it does not; samples are told by ingest."""

    def __init__(self, clock: Clock, directory: Callable[[], str | None]) -> None:
        self._clock, self._directory = clock, directory
        self._troubles: dict[str, Trouble] = {}

    def note(self, database: str, reason: str | None) -> bool:
        """A write failed for `reason`, or succeeded (None). True where that is news."""
        before = self._troubles.get(database)
        if reason is None:
            self._troubles.pop(database, None)
            return before is not None
        since = before.since_ms if before else self._clock.wall_ms()
        self._troubles[database] = Trouble(database, reason, since)
        return before is None

    def troubles(self) -> list[Trouble]:
        """What fails now; empty while all is well."""
        self.note(DIRECTORY, self._directory())
        return list(self._troubles.values())

    @property
    def sentence(self) -> str | None:
        """All of it for people, or None."""
        return " ".join(trouble.sentence for trouble in self.troubles()) or None
