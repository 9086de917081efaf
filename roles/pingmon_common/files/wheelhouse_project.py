"""The wheel of pingmon itself: that in dist/ if it was built from the sources as they are, else one by `make dist`.

`dist/SOURCES` says what the wheel there was built from; a collection that ships both needs no node to install it.
Run as a program, by .ci/dist.sh, this writes that file. Must not know: locks, pip, archives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from wheelhouse_base import Refusal, digest_of, say, sha256

FILES = ("setup.cfg", "pyproject.toml", "README.md", "requirements/build.txt")
FOLDERS = ("pingmon", "pingmon_agent")
NOT_SOURCES = ("__pycache__", "node_modules", "pingmon/static")  # the last is what the front end is built into


def project_wheel(root: Path, given: Path | None) -> Path:
    """`given`, or the one in dist/, built if need be; refuses one that cannot serve the grid."""
    wheel = given or _current(root)
    if wheel is None:
        _make(root)
        stamp(root)
        wheel = _current(root)
    if wheel is None or not zipfile.is_zipfile(wheel) or not wheel.name.startswith("pingmon-"):
        raise Refusal(f"{wheel or root / 'dist'} is no wheel of pingmon: give the one of `make dist` with --wheel.")
    if not any(name.startswith("pingmon/static/") for name in zipfile.ZipFile(wheel).namelist()):
        raise Refusal(f"{wheel} lacks the browser part: build it by `make dist`, which brings that in.")
    return wheel


def stamp(root: Path) -> None:
    """Notes what the wheel in dist/ was built from: digest of the sources, digest of the wheel, its name."""
    for wheel in (root / "dist").glob("*.whl"):
        (root / "dist/SOURCES").write_text(f"{sources_digest(root)} {sha256(wheel.read_bytes())} {wheel.name}\n")


def sources_digest(root: Path) -> str:
    """Of all that a wheel is built from; contents count, times do not, and git is not asked."""
    return digest_of([*(root / name for name in FILES), *_files(root)], below=root)


def _files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for here, below, names in os.walk(root / folder):
            place = Path(here)
            below[:] = sorted(
                n for n in below if n not in NOT_SOURCES and str((place / n).relative_to(root)) not in NOT_SOURCES
            )
            yield from (place / name for name in sorted(names))


def _current(root: Path) -> Path | None:
    noted = root / "dist/SOURCES"
    if not noted.exists():
        return None
    sources, built, name = noted.read_text().split()
    wheel = root / "dist" / name
    same = wheel.exists() and built == sha256(wheel.read_bytes()) and sources == sources_digest(root)
    return wheel if same else None


def _make(root: Path) -> None:
    say("building the wheel of pingmon (make dist)")
    try:
        code = subprocess.call(
            ["make", "--no-print-directory", "dist"], cwd=root, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
    except FileNotFoundError:
        code = 127
    if code:
        raise Refusal(
            f"`make dist` failed in {root}: the lines above say why; or give a wheel of pingmon with --wheel."
        )


if __name__ == "__main__":
    stamp(Path(sys.argv[1]))
