"""`pingmon agents`: see who asked for approval, and decide."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from pingmon.services.approval import Expected
from pingmon.services.registry import Registry
from pingmon.services.views import AgentView

from . import agents_wait, preapproval
from .agents_rows import rows_of
from .common import actor, add_config, services_of
from .plain import add_output, print_rows, shown

Action = Callable[[Registry, str, str], AgentView]
GROUPED = 16
COLUMNS = (
    ("hostname", "HOSTNAME"),
    ("state", "STATE"),
    ("hold_reason", "REASON"),
    ("ip_address", "ADDRESS"),
    ("observed_ip", "SEEN FROM"),
    ("fingerprint", "KEY"),
    ("version", "VERSION"),
    ("seen", "LAST SEEN"),
    ("last_round_ago", "LAST ROUND"),
    ("id", "ID"),
)
ACTIONS: dict[str, tuple[str, Action]] = {
    "reject": ("blacklist an agent", Registry.reject),
    "hold": ("take nothing from an approved agent for now", Registry.hold),
    "delete": ("forget an agent", Registry.delete),
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser(
        "agents", help="list, approve, pre-approve, reject, hold, release, re-key, delete agents"
    )
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
    _register_approve(verbs)
    _register_release(verbs)
    _register_rekey(verbs)
    preapproval.register(verbs)
    agents_wait.register(verbs)
    _register_allow(verbs)


def _register_approve(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("approve", help="let an agent in; the server sends it its targets at once")
    parser.add_argument("agent", nargs="+", help="id or hostname")
    parser.add_argument("--fingerprint", help="only with this key: all of it, or the 16 characters that people compare")
    parser.add_argument("--revision", type=int, help="only if nothing about it has changed since (see `agents show`)")
    add_config(parser)
    parser.set_defaults(func=_approve)


def _register_release(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("release", help="end a hold: the agent may stay where it is until it moves again")
    parser.add_argument("agent", nargs="+", help="id or hostname")
    parser.add_argument("--always", action="store_true", help="its address now is one of its own from now on")
    add_config(parser)
    parser.set_defaults(func=_release)


def _register_rekey(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("rekey", help="give an agent the key of one that waits: its id and history stay")
    parser.add_argument("agent", help="id of the approved or held agent")
    parser.add_argument("pending", help="id of the one that shows the new key; it goes")
    add_config(parser)
    parser.set_defaults(func=_rekey)


def _register_allow(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("allow", help="from which addresses and networks an agent may come, instead of before")
    parser.add_argument("agent", help="id or hostname")
    parser.add_argument("address", nargs="*", help="such as 192.0.2.7 or 192.0.2.0/24; none: leave them as they are")
    parser.add_argument("--observed", choices=("check", "ignore"), help=preapproval.OBSERVED)
    add_config(parser)
    parser.set_defaults(func=_allow)


def _list(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        rows = rows_of(services, [view for view in services.registry.agents() if args.state in (None, view.state)])
    print_rows(rows, COLUMNS, args.output)
    return 0


def _show(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        view = services.registry.agent(args.agent)
        registry = services.registry
        facts = registry.evidence(view.id) | services.refusals.shown(view.no, registry.snapshot.targets)
        facts |= {"completeness": services.completeness.line(view)}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    return 0


def _tell(view: AgentView) -> None:
    sys.stdout.write(f"{shown(view.hostname)} {view.id}: {view.state}\n")


def _approve(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for ref in args.agent:
            wanted = args.fingerprint and _whole(services.registry.agent(ref), args.fingerprint)
            _tell(services.registry.approve(ref, actor(), Expected(wanted, args.revision)))
    return 0


def _whole(view: AgentView, text: str) -> str:
    """The whole of a fingerprint of which people compare the beginning."""
    short = text.replace(" ", "")
    known = view.key_fpr or ""
    return known if len(short) >= GROUPED and known.startswith(short) else short


def _release(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for ref in args.agent:
            _tell(services.registry.release(ref, actor(), always=args.always))
    return 0


def _rekey(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        _tell(services.registry.rekey(args.agent, args.pending, actor()))
    return 0


def _allow(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        ignored = None if args.observed is None else args.observed == "ignore"
        view = services.registry.set_addresses(args.agent, actor(), args.address or None, ignored)
        observed = "ignored" if view.observed_ignored else "checked"
        sys.stdout.write(f"{shown(view.hostname)} {view.id}: {', '.join(view.allowed)}; observed address {observed}\n")
    return 0


def _act(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for ref in args.agent:
            _tell(args.action(services.registry, ref, actor()))
    return 0
