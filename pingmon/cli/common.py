"""What all commands share: the configuration flag, opening the services, printing lists, failing with one sentence."""

from __future__ import annotations

import argparse
import csv
import getpass
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pingmon import config as settings
from pingmon.services.bundle import Services, open_services
from pingmon.services.passphrases import PepperError
from pingmon.services.spreadsheet import tame
from pingmon.store.check import MEND, SAMPLES
from pingmon.store.rounds import StoreError
from pingmon.store.schema import SchemaError

Columns = Sequence[tuple[str, str]]


class CommandError(Exception):
    """The command failed; printed as one sentence. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag --config."""
    parser.add_argument(
        "--config", type=Path, default=settings.DEFAULT_PATH, help=f"server.toml (default {settings.DEFAULT_PATH})"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """The flag --output of every list."""
    parser.add_argument("--output", choices=("table", "json", "csv"), default="table")


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


def print_rows(rows: Sequence[dict[str, Any]], columns: Columns, output: str) -> None:
    """Print a list as JSON (everything), CSV or a table (the columns: [(key, heading)])."""
    if output == "json":
        sys.stdout.write(json.dumps(list(rows), indent=2) + "\n")
        return
    table = [[heading for _, heading in columns]]
    told = tame if output == "csv" else str
    table += [[_cell(row.get(key), told) for key, _ in columns] for row in rows]
    if output == "csv":
        text = io.StringIO()
        csv.writer(text).writerows(table)
        sys.stdout.write(text.getvalue())
        return
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _cell(value: object, told: Callable[[str], str]) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shown(told(value) if isinstance(value, str) else str(value))


def shown(text: str) -> str:
    """Text that a stranger chose, for a terminal: it must never be obeyed."""
    return "".join(c if c.isprintable() else "?" for c in text)
