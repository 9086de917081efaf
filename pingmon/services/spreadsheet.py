"""What a spreadsheet makes of a text: one that begins like a formula is run when the file is opened.

Must not know: who writes the file.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def tame(value: T) -> T | str:
    """`value` as it may stand in a CSV file."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
