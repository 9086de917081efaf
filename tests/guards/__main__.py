"""`python -m tests.guards [NUMBER...]`: every guard is taken out of a copy of the tree, and its test must fail there.

A guard that can be removed without a red test is not held by anything. Exit code 1 names those.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import data, enrolment, transport

GUARDS = [*enrolment.GUARDS, *transport.GUARDS, *data.GUARDS]

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "node_modules", "build", "dist", "__pycache__", ".*_cache", ".run")
LONGEST_S = 240


def main(chosen: list[int]) -> int:
    """0 if each removed guard made its test fail."""
    survivors = []
    with tempfile.TemporaryDirectory(prefix="pingmon-guards-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for number in chosen or range(1, len(GUARDS) + 1):
            file, guard, without, test = GUARDS[number - 1]
            said = _try(tree, file, guard, without, test)
            print(f"guard {number:>2} {said:<9} {file}: {guard.strip().splitlines()[0][:70]}", flush=True)
            if said != "held":
                survivors.append(number)
    print(f"RESULT guards guards={len(chosen or GUARDS)} survivors={len(survivors)}")
    return 1 if survivors else 0


def _try(tree: Path, file: str, guard: str, without: str, test: str) -> str:
    """`held` if the test fails without the guard, `lost` if it passes, `missing` if the guard is not in the file."""
    path = tree / file
    text = path.read_text()
    if text.count(guard) != 1:
        return "missing" if guard not in text else "ambiguous"
    path.write_text(text.replace(guard, without, 1))
    where, _, which = test.partition(" ")
    words = [
        sys.executable,
        "-m",
        "pytest",
        where,
        "-k",
        which,
        "-q",
        "-x",
        "--timeout",
        "200",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run(words, cwd=tree, capture_output=True, timeout=LONGEST_S)
    finally:
        path.write_text(text)
    return {0: "lost", 1: "held"}.get(done.returncode, f"broken ({done.returncode})")


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]]))
