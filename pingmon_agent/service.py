"""The agent as a service: what systemd hears of it, and what a signal asks for while it runs, from one thread.

A sign of life is given only while every loop that matters keeps its word (pulse.py): one that hangs ends the sign, and
systemd starts the agent anew. Must not know: what the loops do, what is in the configuration.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

from .log import say
from .wire.notify import ALIVE, READY, STOPPING, Notifier

_log = logging.getLogger(__name__)
STATUS_EVERY_S = 5.0
_START_TICK_S, _TICK_S, _AFTER_BUG_S = 0.05, 1.0, 1.0
Job = Callable[[], None]


class Service:
    """`stopped`: by what it is about ("the round loop"), whether it has stopped turning. `begun`: whether the agent
    measures, or would if it had targets. `status`: one line for people."""

    def __init__(
        self,
        notifier: Notifier,
        *,
        begun: Callable[[], bool],
        stopped: Mapping[str, Callable[[], bool]],
        status: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier, self._begun, self._stopped, self._status = notifier, begun, stopped, status
        self._now = now
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._fed = self._told = float("-inf")
        self._lost: list[str] = []
        self._said, self._ready = "", False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask(self, job: Job) -> None:
        """Have `job` run by this thread; for signal handlers, as SimpleQueue.put may be interrupted by itself."""
        self._jobs.put(job)

    def stop(self) -> None:
        """The agent is about to end: tell systemd, and be silent from then on."""
        self._notifier.say(STOPPING)
        self._jobs.put(None)

    def _run(self) -> None:
        while True:
            try:
                job = self._next_job()
                if job is None:
                    return
                job()
            except Exception:  # noqa: BLE001 - one of the loop heads
                _log.exception("the service thread met a bug; please report it")
                time.sleep(_AFTER_BUG_S)

    def _next_job(self) -> Job | None:
        """What was asked for, or else a turn; where nobody listens there is no turn and no waking up."""
        try:
            return self._jobs.get(timeout=self._tick_s() if self._notifier.active else None)
        except queue.Empty:
            return self.turn

    def _tick_s(self) -> float:
        return min(_TICK_S, (self._notifier.watchdog_s or 60.0) / 6) if self._ready else _START_TICK_S

    def turn(self) -> None:
        """Tell systemd what there is to tell now."""
        now, watchdog_s = self._now(), self._notifier.watchdog_s
        if not self._ready:
            self._ready = self._begun() and self._notifier.say(READY)
        elif watchdog_s is not None:
            self._complain([name for name, stopped in self._stopped.items() if stopped()])
            if not self._lost and now - self._fed >= watchdog_s / 3:
                self._fed = now
                self._notifier.say(ALIVE)
        if now - self._told >= STATUS_EVERY_S and (line := self._line()) != self._said:
            self._told, self._said = now, line
            self._notifier.say(f"STATUS={line}")

    def _line(self) -> str:
        return (f"no sign of life from {', '.join(self._lost)}; " if self._lost else "") + self._status()

    def _complain(self, lost: list[str]) -> None:
        for name in lost:
            if name not in self._lost:
                _log.error(say(f"no sign of life from {name}; systemd restarts this agent unless it comes back"))
        for name in self._lost:
            if name not in lost:
                _log.info(say(f"{name} is back"))
        self._lost = lost
