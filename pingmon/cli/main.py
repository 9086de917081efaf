"""The command `pingmon`: one sub-command per noun. Exit codes: 0 done, 1 refused or failed with one sentence,
2 wrong usage, 78 the configuration cannot be used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from pingmon.config import ConfigError
from pingmon.services.errors import Refused
from pingmon.store.directory import DirectoryError

from . import agents, backup, configuration, db, demo, doctor, history, passphrases, pki, serve, status, targets, users
from .plain import CommandError, fail

EX_CONFIG = 78
NOUNS = (serve, demo, status, doctor, agents, targets, history, passphrases, users, pki, configuration, db, backup)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="pingmon", description="Self-hosted network latency mesh monitor: the server."
    )
    parser.add_argument("--version", action="version", version=f"pingmon {version('pingmon')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for noun in NOUNS:
        noun.register(commands)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run one command; every refusal is one sentence on standard error."""
    args = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.func
    try:
        return command(args)
    except ConfigError as error:
        return fail(str(error), EX_CONFIG)
    except CommandError as error:
        return fail(str(error), error.code)
    except DirectoryError as error:
        return fail(str(error), 1)
    except Refused as error:
        return fail(error.message, 1)
    except BrokenPipeError:
        # `pingmon … | head`: the reader has what it wants.
        sys.stderr.close()
        return 0
