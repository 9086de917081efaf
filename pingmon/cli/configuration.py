"""`pingmon config check`: say whether the server would start with this file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pingmon import config as settings
from pingmon import tls

from .common import add_config
from .plain import CommandError

EX_CONFIG = 78


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("config", help="check the configuration")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    checker = verbs.add_parser("check", help="read the file and the certificate, change nothing")
    add_config(checker)
    checker.set_defaults(func=_check)


def _check(args: argparse.Namespace) -> int:
    config = settings.load(args.config)
    try:
        chain = tls.check_pair(Path(config.tls.certificate), Path(config.tls.key))
    except tls.TlsError as error:
        raise CommandError(str(error), EX_CONFIG) from error
    sys.stdout.write(f"{args.config} is fine; the certificate is for {', '.join(chain.names)}\n")
    return 0
