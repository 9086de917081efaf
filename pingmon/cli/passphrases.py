"""`pingmon passphrases`: what lets a new agent ask for approval."""

from __future__ import annotations

import argparse
import json
import re
import sys

from .common import actor, add_config, services_of
from .plain import CommandError, add_output, print_rows

COLUMNS = (
    ("id", "ID"),
    ("label", "LABEL"),
    ("state", "STATE"),
    ("uses", "USED"),
    ("max_uses", "OF"),
    ("legacy", "LEGACY"),
    ("created_by", "MADE BY"),
)
_UNITS = {"m": 60, "h": 3_600, "d": 86_400}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("passphrases", help="create, list, revoke passphrases")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    creator = verbs.add_parser("create", help="make a passphrase; it is shown once")
    creator.add_argument("--label", default="command line", help="what it is for, such as a site")
    creator.add_argument(
        "--legacy",
        action="store_true",
        help="for clients that send it as it is inside TLS; works for 30 days at most",
    )
    creator.add_argument("--uses", type=int, default=1, help="how many agents may enrol with it (default 1)")
    creator.add_argument("--ttl", default="24h", help="how long it can be used, such as 30m, 24h, 7d (default 24h)")
    creator.add_argument(
        "--cidr", action="append", default=[], metavar="NETWORK", help="usable from there only; repeat"
    )
    creator.add_argument("--legacy-for", default="30d", help="with --legacy: how long such clients may use it (30d)")
    creator.add_argument("--output", choices=("table", "json"), default="table")
    creator.set_defaults(func=_create)
    lister = verbs.add_parser("list", help="all passphrases, without their secrets")
    add_output(lister)
    lister.set_defaults(func=_list)
    revoker = verbs.add_parser("revoke", help="make a passphrase worthless, also for legacy agents that use it")
    revoker.add_argument("id", nargs="+")
    revoker.add_argument("--reject-pending", action="store_true", help="also reject who waits for approval with it")
    revoker.set_defaults(func=_revoke)
    for parser in (creator, lister, revoker):
        add_config(parser)


def _seconds(flag: str, text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise CommandError(f"{flag} {text!r} is wrong; write a number and m, h or d, such as 24h", 2)
    return int(match[1]) * _UNITS[match[2]]


def _create(args: argparse.Namespace) -> int:
    ttl_s, legacy_s = _seconds("--ttl", args.ttl), _seconds("--legacy-for", args.legacy_for)
    with services_of(args) as services:
        view, text = services.enrolment.create_passphrase(
            args.label,
            legacy=args.legacy,
            max_uses=args.uses,
            ttl_s=ttl_s,
            actor=actor(),
            networks=args.cidr,
            legacy_s=legacy_s,
        )
    if args.output == "json":
        sys.stdout.write(json.dumps(view.as_json() | {"passphrase": text}) + "\n")
        return 0
    sys.stdout.write(text + "\n")
    return 0


def _list(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        rows = [view.as_json() for view in services.enrolment.passphrases()]
    print_rows(rows, COLUMNS, args.output)
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for passphrase_id in args.id:
            view = services.enrolment.revoke_passphrase(passphrase_id, actor())
            sys.stdout.write(f"revoked {view.id} ({view.label})\n")
            if args.reject_pending:
                gone = services.registry.reject_pending(view.id, actor())
                sys.stdout.write(f"rejected {len(gone)} agents that waited with it\n")
    return 0
