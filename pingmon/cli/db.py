"""`pingmon db upgrade`: bring both databases to the schema of this version."""

from __future__ import annotations

import argparse
import sys

from .common import add_config, services_of


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("db", help="look after the databases")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    upgrader = verbs.add_parser("upgrade", help="create or upgrade the schema (`serve` does the same at its start)")
    add_config(upgrader)
    upgrader.set_defaults(func=_upgrade)


def _upgrade(args: argparse.Namespace) -> int:
    with services_of(args, create=True) as services:
        sys.stdout.write(f"the databases in {services.config.data_dir} are up to date\n")
    return 0
