"""What the commands of the server share: the configuration flag, opening the services, who is at the command line."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pingmon import config as settings
from pingmon.services.bundle import Services, open_services
from pingmon.services.passphrases import PepperError
from pingmon.store.check import MEND, SAMPLES
from pingmon.store.rounds import StoreError
from pingmon.store.schema import SchemaError

from .plain import CommandError


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag --config."""
    parser.add_argument(
        "--config", type=Path, default=settings.DEFAULT_PATH, help=f"server.toml (default {settings.DEFAULT_PATH})"
    )


@contextmanager
def services_of(args: argparse.Namespace, create: bool = False) -> Iterator[Services]:
    """The services on the database of `--config`; a server that runs on it sees changes within a second.

    Without `create` the database must be there: made by the wrong user, it would keep the server from starting.
    """
    config = settings.load(args.config)
    if not create and not (config.data_dir / "pingmon.db").exists():
        raise CommandError(
            f"there is no database in {config.data_dir}; start the server once, or run `pingmon db upgrade` as its user"
        )
    try:
        services = open_services(config)
    except (SchemaError, PepperError) as error:
        raise CommandError(str(error)) from error
    except StoreError as error:
        raise CommandError(f"{config.data_dir / SAMPLES} cannot be read ({error}); {MEND}") from error
    except OSError as error:
        raise CommandError(
            f"{config.data_dir} cannot be used ({error.strerror}); run this as the user the server runs as"
        ) from error
    try:
        yield services
    finally:
        services.close()


def actor() -> str:
    """Who is at the command line, for the audit table."""
    return f"cli:{getpass.getuser()}"
