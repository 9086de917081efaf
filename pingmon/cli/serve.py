"""`pingmon serve`: the server itself."""

from __future__ import annotations

import argparse
import errno
import faulthandler
import logging
import os
import sys
import time
from pathlib import Path

from pingmon import config as settings
from pingmon.services.errors import Refused
from pingmon.services.passphrases import PepperError
from pingmon.store.check import MEND, SAMPLES, DamageError
from pingmon.store.lock import LockError
from pingmon.store.rounds import StoreError
from pingmon.store.schema import SchemaError
from pingmon.tls import TlsError

from .common import add_config
from .plain import CommandError

EX_CONFIG = 78


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("serve", help="run the server until it is told to stop")
    add_config(parser)
    parser.set_defaults(func=_serve)


def _serve(args: argparse.Namespace) -> int:
    config = settings.load(args.config)
    _log_to_stderr(config.log.level)
    faulthandler.enable(2)  # systemd ends a server that hangs by SIGABRT: the log says where it hung
    # Only the server needs Flask and all that: `pingmon agents list` must not wait for it.
    from pingmon.app import serve

    try:
        serve(config, lambda: settings.load(args.config))
    except TlsError as error:
        raise CommandError(str(error), EX_CONFIG) from error
    except Refused as refusal:
        why = f"{refusal.message}; the server does not start before (see [targets] in docs/operations.md)"
        raise CommandError(why, EX_CONFIG) from refusal
    except (SchemaError, PepperError, LockError, DamageError) as error:
        raise CommandError(str(error)) from error
    except StoreError as error:
        raise CommandError(f"{config.data_dir / SAMPLES} cannot be read ({error}); {MEND}") from error
    except OSError as error:
        raise CommandError(_sentence(error, config)) from error
    return 0


class _Lines(logging.Formatter):
    """The form of the agent's log: UTC, level in lower case, message with key=value."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class names it so
        """One line, whatever stands in it: a name with a line break must not write a second one."""
        record.message = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in record.message)
        return super().formatMessage(record)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s.%(msecs)03dZ "
    handler.setFormatter(_Lines(f"{stamp}%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    # Libraries speak from `warning` on: alembic alone has two lines for every start, whatever it does.
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pingmon").setLevel(level.upper())


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
