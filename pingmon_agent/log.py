"""Log lines for somebody who never logs in: one line per event, `level message key=value ...`, on stderr.

Times are left to the journal when there is one; elsewhere each line starts with UTC time. Knows nothing of the agent.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
SUMMARY_EVERY_S = 600.0


def say(message: str, **facts: object) -> str:
    """`message key=value ...`; values with spaces are quoted, so that a line can be cut by machine too."""
    return " ".join([message, *(f"{key}={_value(value)}" for key, value in facts.items())])


def _value(value: object) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else " " for c in text)  # some of it is what the server says
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text


class _Lines(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)


def setup(level: str) -> None:
    """Send this program's log to stderr at `level` (one of LEVELS); other libraries speak from `warning` on."""
    in_journal = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(sys.stderr)
    stamp = "" if in_journal else "%(asctime)s.%(msecs)03dZ "
    handler.setFormatter(_Lines(f"{stamp}%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.getLogger("pingmon_agent").setLevel(LEVELS[level])
    threading.excepthook = _thread_failed


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A thread of a library died, over a packet it could not read, say: in our log, like everything else."""
    facts = (failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    logging.getLogger("pingmon_agent").error(say("a thread failed", reason=failure.exc_value), exc_info=facts)


class Cause:
    """Says a cause of trouble once, then only a summary every `every_s`: a week of outage is a page, not a flood."""

    def __init__(
        self, log: logging.Logger, every_s: float = SUMMARY_EVERY_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._every_s, self._now = log, every_s, now
        self._cause: str | None = None
        self._said_at = 0.0
        self._unsaid = 0

    def report(self, cause: str, **facts: object) -> None:
        """Log `cause` if it is new, or a summary if it has lasted for another `every_s`."""
        if cause != self._cause:
            self._cause, self._said_at, self._unsaid = cause, self._now(), 0
            self._log.warning(say(cause, **facts))
            return
        self._unsaid += 1
        if self._now() - self._said_at >= self._every_s:
            self._log.warning(say(cause, repeated=self._unsaid, **facts))
            self._said_at, self._unsaid = self._now(), 0

    def clear(self) -> None:
        """The trouble is over: the same cause counts as news again."""
        self._cause = None
