"""What every command may use, whatever is installed: failing with one sentence, printing lists.

Must not know: the configuration, the store, the services. `pingmon pki` runs where nothing but `cryptography` is.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pingmon.services.spreadsheet import tame

Columns = Sequence[tuple[str, str]]


class CommandError(Exception):
    """The command failed; printed as one sentence. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: int) -> int:
    """Print a failure as one line on standard error; returns `code`."""
    # A path from a damaged file may hold a line break: one sentence stays one line.
    sys.stderr.write(f"pingmon: {shown(message)}\n")
    return code


def add_output(parser: argparse.ArgumentParser) -> None:
    """The flag --output of every list."""
    parser.add_argument("--output", choices=("table", "json", "csv"), default="table")


def dump(value: object) -> None:
    """Print something as JSON, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_rows(rows: Sequence[dict[str, Any]], columns: Columns, output: str) -> None:
    """Print a list as JSON (everything), CSV or a table (the columns: [(key, heading)])."""
    if output == "json":
        dump(list(rows))
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
