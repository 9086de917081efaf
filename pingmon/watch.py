"""What systemd hears of the server: ready, how it is, and a sign of life that is worth its name.

Each vital check runs again and again in a thread of its own, so that one that hangs stops nobody but itself. The sign
of life is given by another one, on the hub: only while every check has succeeded in the last seconds. Must not know:
what is checked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from pingmon_agent.wire.notify import ALIVE, READY, Notifier

log = logging.getLogger("pingmon.watch")
FRESH_S = 10.0  # what a check found out is believed for this long
STATUS_EVERY_S = 5.0
_START_TICK_S, _TICK_S = 0.1, 1.0
Check = Callable[[], None]


class Watch:
    """`checks`: by what they are about ("the committer"); each returns or raises. `status`: one line for people.

    A watchdog of `watchdog_s` is fed three times in that time, on what was found out within a third of it (at most
    FRESH_S). So a hub that hangs is found after `watchdog_s`, all else at most a third later.
    """

    def __init__(
        self,
        notifier: Notifier,
        checks: Mapping[str, Check],
        status: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier, self._checks, self._status, self._now = notifier, checks, status, now
        self._feed_every_s = (notifier.watchdog_s or 3 * FRESH_S) / 3
        self._fresh_s = min(FRESH_S, self._feed_every_s)
        self._seen: dict[str, float] = {}  # when the last check began that succeeded
        self._reasons: dict[str, str] = {}
        self._late: list[str] = []
        self._fed = self._told = float("-inf")
        self._said = ""
        self.ready = self._stopped = False

    def start(self, spawn: Callable[..., object]) -> None:
        """Begin, in threads that `spawn` makes; nothing where nobody listens."""
        if not self._notifier.active:
            return
        for name in self._checks:
            spawn(self._keep_checking, name)
        spawn(self._run)

    def stop(self) -> None:
        """The checks end by themselves, and what they find does not count any more."""
        self._stopped = True

    # -- the checks --

    def _keep_checking(self, name: str) -> None:
        while not self._stopped:
            began = self._now()
            try:
                self._checks[name]()
            except Exception as error:  # noqa: BLE001 - a check may fail in any way; `turn` says so where it lasts
                self._reasons[name] = str(error) or type(error).__name__
            else:
                self._seen[name] = began
                if self._notifier.watchdog_s is None:
                    return  # only `ready` asked for it
            time.sleep(self._fresh_s / 3)

    # -- the sign of life --

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.turn()
            except Exception:
                log.exception("systemd could not be told how the server is")
            time.sleep(min(_TICK_S, self._feed_every_s / 2) if self.ready else _START_TICK_S)

    def turn(self) -> None:
        """Tell systemd what there is to tell now."""
        now = self._now()
        if not self.ready:
            self.ready = len(self._seen) == len(self._checks) and self._notifier.say(READY)
        elif self._notifier.watchdog_s is not None:
            self._complain([name for name in self._checks if now - self._seen[name] > self._fresh_s])
            if not self._late and now - self._fed >= self._feed_every_s:
                self._fed = now
                self._notifier.say(ALIVE)
        if now - self._told >= STATUS_EVERY_S and (line := self._line()) != self._said:
            self._told, self._said = now, line
            self._notifier.say(f"STATUS={line}")

    def _line(self) -> str:
        if self.ready and not self._late:
            return self._status()
        return f"starting, {self._status()}" if not self.ready else f"no sign of life from {', '.join(self._late)}"

    def _complain(self, late: list[str]) -> None:
        for name in late:
            if name not in self._late:
                log.error("no sign of life from %s for %.0f s (%s); systemd restarts this server unless it comes back",
                          name, self._now() - self._seen[name], self._reasons.get(name, "no answer"))  # fmt: skip
        for name in self._late:
            if name not in late:
                log.info("%s is back", name)
        self._late = late
