"""The configuration read again while the agent runs: what can be applied at once is, the rest is named.

A file that cannot be used changes nothing. Must not know: where the configuration comes from, what its settings do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import fields, replace

from .config import SECTIONS, Config, ConfigError
from .log import LEVELS, say
from .policy import Policy, PolicyError, policy_of
from .wire.notify import READY, Notifier

_log = logging.getLogger(__name__)
AT_ONCE = ("log.level",)


def changes(before: Config, after: Config) -> list[str]:
    """Keys (`section.key`) that are not the same."""
    return [
        f"{section}.{key.name}"
        for section, kind in SECTIONS.items()
        for key in fields(kind)
        if getattr(getattr(before, section), key.name) != getattr(getattr(after, section), key.name)
    ]


class Reload:
    """`load` reads the file again and raises ConfigError; `policy` is the one in force."""

    def __init__(
        self,
        started_with: Config,
        policy: Policy,
        load: Callable[[], Config],
        notifier: Notifier,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._in_force, self._policy, self._load = started_with, policy, load
        self._notifier, self._now = notifier, now
        self.successful, self.succeeded_at = True, now()

    def run(self) -> None:
        """Read it again; not for a signal handler. Raises what only a bug can."""
        self._notifier.reloading()
        self.successful = False
        try:
            self._read_again()
        except (ConfigError, PolicyError) as err:
            _log.error(say(f"configuration not reloaded: {err}; the settings that were loaded before stay in force"))
        else:
            self.successful, self.succeeded_at = True, self._now()
        finally:
            self._notifier.say(READY)

    def _read_again(self) -> None:
        found = self._load()
        policy = policy_of(found.probe.policy_file, found.probe.allow_loopback)
        logging.getLogger("pingmon_agent").setLevel(LEVELS[found.log.level])
        changed = changes(self._in_force, found)
        waiting = [key for key in changed if key not in AT_ONCE]
        if policy != self._policy and not {"probe.policy_file", "probe.allow_loopback"} & set(waiting):
            waiting.append("the rules of the policy file")
        self._in_force = replace(self._in_force, log=found.log)
        _log.info(say("configuration reloaded", changed=",".join(changed) or "nothing"))
        if waiting:
            _log.warning(say(f"settings that are in force only after a restart: {', '.join(waiting)}"))
