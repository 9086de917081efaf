"""When the last backup was made: a small file beside the databases, for who looks after them.

Must not know: what is in a backup.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "last-backup.json"


@dataclass(frozen=True)
class LastBackup:
    """`at_ms` unix ms, `bytes` its size; the file may have been moved since."""

    at_ms: int
    file: str
    bytes: int


def note(data_dir: Path, last: LastBackup) -> None:
    """Raises OSError."""
    fresh = data_dir / f".{NAME}"
    fresh.write_text(json.dumps(asdict(last)) + "\n")
    fresh.replace(data_dir / NAME)


def known(data_dir: Path) -> LastBackup | None:
    """None where no backup was made, or nothing can be read that says so."""
    try:
        found = json.loads((data_dir / NAME).read_text())
        return LastBackup(int(found["at_ms"]), str(found["file"]), int(found["bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
