"""A copy of the repository, from which one guard at a time is taken out while its test runs there.

Must not know: which guards there are.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .enrolment import Guard

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "node_modules", "build", "dist", "__pycache__", ".*_cache", ".run")
LONGEST_S = 240
PASSED, FAILED, HUNG = 0, 1, -1


class Tree:
    """The copy at `place`; `log` is where the output of each run goes."""

    def __init__(self, root: Path, place: Path) -> None:
        self.place = place
        self._child: subprocess.Popen[bytes] | None = None
        shutil.copytree(root, place, ignore=LEFT_OUT)
        for packages in root.glob("pingmon/frontend/node_modules"):  # too many to copy, and none of our guards is there
            (place / packages.relative_to(root)).symlink_to(packages)

    def without(self, guard: Guard, log: Path) -> str:
        """`held` if the test fails without the guard, `lost` if it passes; else what is wrong with the entry."""
        file, text, replacement, test = guard
        log.unlink(missing_ok=True)
        path = self.place / file
        source = path.read_text()
        if source.count(text) != 1:
            return "ambiguous" if text in source else "missing"
        with _written(path, source.replace(text, replacement), source):
            code = self.run(test, log)
        return {PASSED: "lost", FAILED: "held", HUNG: "hung"}.get(code, f"broken ({code})")

    def run(self, test: str, log: Path) -> int:
        """pytest's exit code for `FILE EXPRESSION`, or HUNG."""
        where, _, which = test.partition(" ")
        words = [sys.executable, "-m", "pytest", where, "-k", which, "-q", "-x"]
        words += ["--timeout", "200", "-p", "no:cacheprovider"]
        # The programs that tests start must be those of the copy too, wherever they are started.
        environment = os.environ | {"PYTHONPATH": str(self.place)}
        with log.open("w") as output:
            self._child = subprocess.Popen(
                words, cwd=self.place, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        try:
            return self._child.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self.stop()
            return HUNG

    def stop(self) -> None:
        """End what runs here, with all that it started."""
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


@contextmanager
def _written(path: Path, text: str, before: str) -> Iterator[None]:
    """The file with other content for a while."""
    try:
        _write(path, text)
        yield
    finally:
        _write(path, before)


def _write(path: Path, text: str) -> None:
    """Python tells byte code by second and size, so that of a text as long and as old would be run instead of it."""
    path.write_text(text)
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*"):
        stale.unlink()
