"""The configuration read again while the server runs: what can be applied at once is, the rest is named.

A file that cannot be used changes nothing. Must not know: where the configuration comes from, what its settings do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import fields, replace

from pingmon_agent.wire.notify import READY, Notifier

from .config import Config, ConfigError

log = logging.getLogger("pingmon.config")
AT_ONCE = ("log.level",)


def changes(before: Config, after: Config) -> list[str]:
    """Keys (`section.key`) that are not the same."""
    return [
        f"{section.name}.{key.name}"
        for section in fields(Config)
        for key in fields(getattr(before, section.name))
        if getattr(getattr(before, section.name), key.name) != getattr(getattr(after, section.name), key.name)
    ]


class Reload:
    """`load` reads the file again and raises ConfigError; `also` is what else a request is for. `ask` may come from a
    signal handler, `look` does the work."""

    def __init__(
        self,
        started_with: Config,
        load: Callable[[], Config],
        notifier: Notifier | None = None,
        also: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._in_force, self._load, self._also, self._now = started_with, load, also, now
        self._notifier = notifier or Notifier()
        self._asked = False
        self.successful, self.succeeded_at = True, now()

    def ask(self) -> None:
        """Have it done at the next look."""
        self._asked = True

    def look(self) -> None:
        """Do what was asked for since the last look, if anything. Never raises."""
        if not self._asked:
            return
        self._asked = False
        self._notifier.reloading()
        self._also()
        try:
            self.successful = self._read_again()
        except Exception:
            self.successful = False
            log.exception("configuration not reloaded; the settings that were loaded before stay in force")
        self._notifier.say(READY)

    def _read_again(self) -> bool:
        try:
            found = self._load()
        except ConfigError as error:
            log.error("configuration not reloaded: %s; the settings that were loaded before stay in force", error)  # noqa: TRY400 - no bug
            return False
        logging.getLogger("pingmon").setLevel(found.log.level.upper())
        changed = changes(self._in_force, found)
        waiting = [key for key in changed if key not in AT_ONCE]
        log.info("configuration reloaded changed=%s", ",".join(changed) or "nothing")
        if waiting:
            log.warning("settings that are in force only after a restart: %s", ", ".join(waiting))
        self._in_force = replace(self._in_force, log=found.log)
        self.succeeded_at = self._now()
        return True
