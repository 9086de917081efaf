"""`pingmon users`: the first admin, by a link that works once."""

from __future__ import annotations

import argparse
import sys

from .common import actor, add_config, services_of
from .plain import CommandError, add_output, print_rows

COLUMNS = (("email", "E-MAIL"), ("roles", "ROLES"), ("active", "ACTIVE"), ("last_login", "LAST SIGN-IN"))


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("users", help="create the first admin, list users")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    creator = verbs.add_parser("create", help="print a link with which the first admin chooses e-mail and password")
    creator.add_argument("--admin", action="store_true", required=True)
    creator.set_defaults(func=_create)
    lister = verbs.add_parser("list", help="who may sign in")
    add_output(lister)
    lister.set_defaults(func=_list)
    for parser in (creator, lister):
        add_config(parser)


def _create(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        if services.accounts.has_admin():
            raise CommandError("there is an admin already; sign in as that one")
        token = services.accounts.create_link(services.clock.wall_ms(), actor())
        port = services.config.server.port
        host = _own_address(services.config.server.listen)
    sys.stdout.write(f"https://{host}:{port}/welcome/{token}\n")
    sys.stderr.write(
        "open it in a browser on this host within an hour; it works once "
        f"(from elsewhere: ssh -L {port}:{host}:{port} HOST, then https://127.0.0.1:{port}/...)\n"
    )
    return 0


def _own_address(listen: str) -> str:
    """Where a browser on this host finds a server that listens there; in brackets for IPv6."""
    if listen in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{listen}]" if ":" in listen else listen


def _list(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        rows = [
            {
                "email": user.email,
                "roles": ", ".join(role.name for role in user.roles),
                "active": user.active,
                "last_login": user.current_login_at.isoformat(timespec="seconds") if user.current_login_at else None,
            }
            for user in services.accounts.users()
        ]
    print_rows(rows, COLUMNS, args.output)
    return 0
