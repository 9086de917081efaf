"""`pingmon db upgrade` and `pingmon db check`: the schema of both databases, and whether they are sound."""

from __future__ import annotations

import argparse
import sqlite3
import sys

from pingmon import config as settings
from pingmon.store.check import DIRECTORY, SAMPLES, check

from .common import add_config, services_of
from .plain import CommandError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("db", help="look after the databases")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    upgrader = verbs.add_parser("upgrade", help="create or upgrade the schema (`serve` does the same at its start)")
    upgrader.set_defaults(func=_upgrade)
    checker = verbs.add_parser("check", help="read everything and say what is wrong; the server may run meanwhile")
    checker.set_defaults(func=_check)
    for parser in (upgrader, checker):
        add_config(parser)


def _upgrade(args: argparse.Namespace) -> int:
    with services_of(args, create=True) as services:
        sys.stdout.write(f"the databases in {services.config.data_dir} are up to date\n")
    return 0


def _check(args: argparse.Namespace) -> int:
    data_dir = settings.load(args.config).data_dir
    for name in (DIRECTORY, SAMPLES):
        if not (data_dir / name).exists():
            raise CommandError(f"there is no {name} in {data_dir}; restore a backup, or run `pingmon db upgrade`")
    try:
        found = check(data_dir)
    except sqlite3.Error as error:
        raise CommandError(
            f"the databases in {data_dir} cannot be read ({error}); run this as the user the server runs as, and "
            "`pingmon db upgrade` first if they are of an older version"
        ) from error
    sys.stdout.write(
        f"{found.agents} agents, {found.raw_rounds} raw rounds, {found.compacted_rounds} rounds in "
        f"{found.chunks} chunks, {found.samples} samples\n"
    )
    for problem in found.problems:
        sys.stderr.write(f"pingmon: {problem}\n")
    if found.problems:
        sys.stderr.write("pingmon: restore a backup with `pingmon restore FILE`, or keep what can still be read\n")
    return 1 if found.problems else 0
