"""`pingmon` many times over, one process at a time: see newborn.py, which is the other end of the line."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pingmon.cli.children import die_with
from tests.support.processes import clean_environment


class Nursery:
    """The parent of such processes, seen from outside."""

    def __init__(self, said: Path, without: str) -> None:
        self.said = said
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.newborn", without], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=clean_environment(), preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - see fault 4
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    @contextmanager
    def program(self, *words: str) -> Iterator[Program]:
        """`pingmon WORDS`; killed at the end if it still runs."""
        self.said.write_text("")
        self._in.write(json.dumps([str(self.said), *words]).encode() + b"\n")
        self._in.flush()
        program = Program(self, int(self._line().split()[1]))
        try:
            yield program
        finally:
            if program.code is None:
                os.kill(program.pid, signal.SIGKILL)
                program.wait(10.0)

    def heard(self, seconds: float) -> str | None:
        """The next line, if it comes within the time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            return self._line() if selector.select(seconds) else None

    def _line(self) -> str:
        line = self._out.readline().decode()
        assert line, "the nursery has ended"
        return line

    def close(self) -> None:
        """No more of them."""
        self._in.close()
        self._process.wait()


class Program:
    """One of them. `code`: its exit code once it is known to have ended; minus the signal that killed it."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.code: int | None = None

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """Until it has ended or `until` is true; its exit code. AssertionError when the time is over."""
        end = time.monotonic() + seconds
        while self.code is None and not until():
            assert time.monotonic() < end, f"neither ready nor ended: {self.said[-2000:]}"
            if (line := self._nursery.heard(0.01)) is not None:
                self.code = int(line.split()[1])
        return self.code

    @property
    def said(self) -> str:
        """Its standard error and output so far."""
        return self._nursery.said.read_text(errors="replace")
