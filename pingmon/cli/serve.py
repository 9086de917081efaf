"""`pingmon serve`: the server itself."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from pathlib import Path

from pingmon import config as settings
from pingmon.services.passphrases import PepperError
from pingmon.store.schema import SchemaError
from pingmon.tls import TlsError

from .common import CommandError, add_config

EX_CONFIG = 78


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("serve", help="run the server until it is told to stop")
    add_config(parser)
    parser.set_defaults(func=_serve)


def _serve(args: argparse.Namespace) -> int:
    config = settings.load(args.config)
    logging.basicConfig(
        level=config.log.level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)  # says two lines at every start, whatever it does
    # Only the server needs Flask and all that: `pingmon agents list` must not wait for it.
    from pingmon.app import serve

    try:
        serve(config)
    except TlsError as error:
        raise CommandError(str(error), EX_CONFIG) from error
    except (SchemaError, PepperError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(_sentence(error, config)) from error
    return 0


def _sentence(error: OSError, config: settings.Config) -> str:
    where = f"{config.server.listen}:{config.server.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program; stop it or choose another server.port"
    if error.errno == errno.EACCES and error.filename is None:
        return f"this user may not listen on {where}; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host has no address {config.server.listen}; correct server.listen"
    place = Path(error.filename) if error.filename else config.data_dir
    return f"{place} cannot be used ({error.strerror}); give this user the right to, or change server.data_dir"
