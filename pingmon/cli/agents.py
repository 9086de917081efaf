"""`pingmon agents`: see who asked for approval, and decide."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pingmon.services.registry import Registry
from pingmon.services.views import AgentView

from .common import actor, add_config, add_output, print_rows, services_of

Action = Callable[[Registry, str, str], AgentView]
COLUMNS = (
    ("hostname", "HOSTNAME"),
    ("state", "STATE"),
    ("hold_reason", "REASON"),
    ("ip_address", "ADDRESS"),
    ("observed_ip", "SEEN FROM"),
    ("version", "VERSION"),
    ("seen", "LAST SEEN"),
    ("id", "ID"),
)
ACTIONS: dict[str, tuple[str, Action]] = {
    "approve": ("let an agent in; the server sends it its targets at once", Registry.approve),
    "reject": ("blacklist an agent", Registry.reject),
    "hold": ("take nothing from an approved agent for now", Registry.hold),
    "release": ("end a hold; the address the agent has now becomes the known one", Registry.release),
    "delete": ("forget an agent", Registry.delete),
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("agents", help="list, approve, reject, hold, release, delete agents")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    lister = verbs.add_parser("list", help="all agents")
    add_config(lister)
    add_output(lister)
    lister.add_argument("--state", choices=("pending", "approved", "hold", "blacklisted"))
    lister.set_defaults(func=_list)
    shower = verbs.add_parser("show", help="one agent as JSON, with its last 24 hours in a line")
    shower.add_argument("agent", help="id or hostname")
    add_config(shower)
    shower.set_defaults(func=_show)
    for verb, (help_text, action) in ACTIONS.items():
        parser = verbs.add_parser(verb, help=help_text)
        parser.add_argument("agent", nargs="+", help="id or hostname")
        add_config(parser)
        parser.set_defaults(func=_act, action=action)


def _list(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        rows = [_row(view) for view in services.registry.agents() if args.state in (None, view.state)]
    print_rows(rows, COLUMNS, args.output)
    return 0


def _row(view: AgentView) -> dict[str, Any]:
    seen = datetime.fromtimestamp(view.last_seen_ms / 1000, UTC)
    return view.as_json() | {"seen": seen.strftime("%Y-%m-%d %H:%M:%SZ")}


def _show(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        view = services.registry.agent(args.agent)
        registry = services.registry
        shown = view.as_json() | {"not_in_mesh": registry.why_not_in_mesh(view)}
        shown |= services.refusals.shown(view.no, registry.snapshot.targets)
        shown |= {"completeness": services.completeness.line(view)}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


def _act(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for ref in args.agent:
            view = args.action(services.registry, ref, actor())
            sys.stdout.write(f"{view.hostname} {view.id}: {view.state}\n")
    return 0
