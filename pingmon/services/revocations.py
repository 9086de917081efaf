"""Who was shut out, in a file outside the database, so that a restored backup does not let him in again.

One JSON line per decision: `{"at_ms", "agent_id", "hostname", "action"}`; of each agent the last one counts. Backups
do not hold it and a restore leaves it alone. Must not know: sockets, Flask, the database.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("pingmon.registry")
REJECTED, HELD, DELETED, ADMITTED = "reject", "hold", "delete", "admit"


@dataclass(frozen=True)
class Revocation:
    """The last decision about one agent; `at_ms` unix ms."""

    at_ms: int
    agent_id: str
    hostname: str
    action: str


class Revocations:
    """The file at `path`, made at the first decision."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, revocation: Revocation) -> None:
        """Append and sync; a failure is logged, for the decision itself stands."""
        line = json.dumps(vars(revocation), sort_keys=True) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("%s cannot be written (%s): after a restore of an older backup, %s %s again by hand",
                      self._path, error.strerror, revocation.action, revocation.hostname)  # fmt: skip

    def standing(self) -> dict[str, Revocation]:
        """The last decision of each agent that was ever shut out, by agent id; damaged lines are named in the log."""
        found: dict[str, Revocation] = {}
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return found
        for number, line in enumerate(lines, 1):
            try:
                revocation = Revocation(**json.loads(line))
                found[revocation.agent_id] = revocation
            except (ValueError, TypeError):
                log.warning("%s, line %d is damaged and not followed; see whom you had shut out", self._path, number)
        return found
