"""What all parts of the wheelhouse share. Must not know: any of them, and anything outside the standard library."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path


class Refusal(Exception):  # noqa: N818 - the text is the sentence that the user reads
    """Nothing can be built; the sentence says why and what to do."""


def say(line: str) -> None:
    """Progress, for people."""
    print(f"== {line}", file=sys.stderr, flush=True)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: Iterable[Path], *words: str, below: Path | None = None) -> str:
    """One sha256 over words, and over names (paths, where `below` is given) and contents of files."""
    parts = [
        *words,
        *(f"{file.relative_to(below) if below else file.name} {sha256(file.read_bytes())}" for file in files),
    ]
    return sha256("\n".join(parts).encode())
