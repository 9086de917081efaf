"""What this host refuses to ping, as the server is told: addresses in the acknowledgement of a set, names later, in the
next report after their addresses came to be refused.

Must not know: why anything is refused, the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from .log import say
from .wire.contract import Report, TargetSet
from .wire.hosts import MAX_REFUSED, MAX_REFUSED_LATER

_log = logging.getLogger(__name__)
Verdicts = Callable[[TargetSet], Mapping[int, str]]
Names = Callable[[], tuple[int, Mapping[int, str]]]


class Refusals:
    """`verdicts`: target ids of a set that are refused, with codes; `names`: (revision, the same of its names) now."""

    def __init__(self, verdicts: Verdicts = lambda _set: {}, names: Names = lambda: (-1, {})) -> None:
        self._verdicts, self._names = verdicts, names
        self._told: tuple[tuple[int, str], ...] = ()

    def acknowledgement(self, targets: TargetSet) -> dict[str, Any]:
        """Of a set that is taken; as many refusals as fit, and how many there are."""
        refused = [[target_id, str(code)] for target_id, code in self._verdicts(targets).items()]
        self._told = ()
        if refused:
            _log.warning(say("this host refuses to ping some targets", count=len(refused), first=refused[0][1]))
        count = {"refused_count": len(refused)} if len(refused) > MAX_REFUSED else {}
        return {"ok": True, "revision": targets.revision, "refused": refused[:MAX_REFUSED], **count}

    def news(self, revision: int) -> tuple[tuple[int, str], ...] | None:
        """The names of the set in force that are refused now, if the server knows otherwise."""
        of, found = self._names()
        refused = tuple(sorted((target_id, str(code)) for target_id, code in found.items())[:MAX_REFUSED_LATER])
        return refused if of == revision and refused != self._told else None

    def arrived(self, report: Report) -> None:
        """The server has this report."""
        if report.refused is not None:
            self._told = report.refused
