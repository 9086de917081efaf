"""`pingmon agents wait`: until agents are approved, measure, and run a version; for whoever has just changed them.

It looks at the databases once a second and holds nothing meanwhile, so the server goes on as if nobody waited.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pingmon.services.bundle import Services
from pingmon.services.ingest import LATE_AFTER_ROUNDS
from pingmon.services.views import AgentView
from pingmon_agent.wire.contract import State

from .agents_rows import latest_rounds, rows_of
from .common import add_config, services_of
from .plain import CommandError, add_output, print_rows, shown

EVERY_S = 1.0
NAMED = 10
COLUMNS = (
    ("hostname", "HOSTNAME"),
    ("state", "STATE"),
    ("version", "VERSION"),
    ("last_round_ago", "LAST ROUND"),
    ("missing", "MISSING"),
)


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to `pingmon agents`."""
    parser = verbs.add_parser("wait", help="until agents have measured and delivered a round, from now on")
    parser.add_argument("agent", nargs="*", help="id or hostname (default: all that are approved)")
    parser.add_argument("--version", help="and run this version")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds (default %(default)g)")
    add_output(parser)
    add_config(parser)
    parser.set_defaults(func=_wait)


def _wait(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        watch = Watch(services, args.agent, args.version)
        end = time.monotonic() + args.timeout
        while (missing := watch.look()) and time.monotonic() < end:
            time.sleep(min(EVERY_S, max(0.0, end - time.monotonic())))
        print_rows(watch.rows(missing), COLUMNS, args.output)
        if idle := watch.idle():
            sys.stderr.write(f"not waited for: {', '.join(map(shown, idle))}; without targets there are no rounds\n")
    if missing:
        raise CommandError(f"after {args.timeout:g} s: {_spelled(list(missing.values()))}")
    return 0


def _spelled(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - NAMED} more" if len(sentences) > NAMED else ""
    return "; ".join(sentences[:NAMED]) + more


@dataclass
class Watch:
    """Some agents (by id or hostname; none: all that are approved now), watched from now on.

    Raises NotFound, Conflict where one of them is not known.
    """

    services: Services
    refs: Sequence[str]
    version: str | None = None
    _numbers: list[int] = field(init=False)
    _measured: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        registry = self.services.registry
        approved = [view for view in registry.agents() if view.state is State.APPROVED]
        views = [registry.agent(ref) for ref in self.refs] if self.refs else approved
        self._numbers = list(dict.fromkeys(view.no for view in views))
        self._names = {view.no: view.hostname for view in views}
        self._began_ms = self.services.clock.wall_ms()
        self._latest = latest_rounds(self.services)

    def look(self) -> dict[int, str]:
        """What is missing now, by agent number; empty once all are well."""
        services = self.services
        services.registry.refresh()
        late_ms = LATE_AFTER_ROUNDS * services.registry.interval_s * 1000
        waiting = [no for no in self._numbers if no not in self._measured]
        self._measured |= self._latest.measured_since(waiting, self._began_ms, late_ms)
        with services.directory.reading() as tx:
            versions = tx.versions()
        found = {no: self._missing(no, versions.get(no, "")) for no in self._numbers}
        return {no: f"{self._names[no]} {why}" for no, why in found.items() if why is not None}

    def _missing(self, no: int, version: str) -> str | None:
        view = self.services.registry.snapshot.agents.get(no)
        if view is None:
            return "was deleted"
        if view.state is not State.APPROVED:
            return f"is {_state(view)}"
        if self.version is not None and version != self.version:
            return f"runs {version or 'no version that is known'}, not {self.version}"
        return (
            None
            if no in self._measured or not self._has_targets(no)
            else "has delivered no round that was measured since"
        )

    def _has_targets(self, no: int) -> bool:
        found = self.services.registry.snapshot.sets.get(no)
        return found is not None and bool(found.target_ids)

    def idle(self) -> list[str]:
        """Hostnames of those that are approved and have nothing to measure, so that no round can be expected."""
        agents = self.services.registry.snapshot.agents
        views = [agents[no] for no in self._numbers if no in agents and not self._has_targets(no)]
        return [view.hostname for view in views if view.state is State.APPROVED]

    def rows(self, missing: dict[int, str]) -> list[dict[str, Any]]:
        """As `pingmon agents list` has them, and beside it what is `missing`, None where nothing is."""
        agents = self.services.registry.snapshot.agents
        views = [agents[no] for no in self._numbers if no in agents]
        with self.services.directory.reading() as tx:
            versions = tx.versions()
        return [
            row | {"version": versions.get(view.no, ""), "missing": missing.get(view.no)}
            for view, row in zip(views, rows_of(self.services, views), strict=True)
        ]


def _state(view: AgentView) -> str:
    if view.state is State.HOLD:
        return f"on hold ({view.hold_reason})"
    return "not approved yet" if view.state is State.PENDING else str(view.state)
