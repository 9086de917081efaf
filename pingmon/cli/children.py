"""Child processes that cannot outlive their parent: what `pingmon demo` (and the tests) start servers and agents with.

Each child has a session of its own, so that Ctrl-C reaches the parent alone and the parent decides the order of the
end; and the kernel kills it when the parent dies, however that happens. Must not know: what the children do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: nothing may be imported between fork and exec


def die_with(parent: int) -> Callable[[], None]:
    """A `preexec_fn`: the kernel kills the new process when `parent` (the caller) ends."""

    def before_exec() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != parent:
            os._exit(1)

    return before_exec


class Child:
    """A running program whose output goes to a file.

    The kernel ties it to the *thread* that starts it, so start it from the main one.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - the parents that use this have one thread
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_lines(self, count: int = 10) -> str:
        """The end of its log, for whoever has to explain why it died."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])

    def stop(self, patience_s: float = 10.0) -> int:
        """Ask it to end, insist after `patience_s` seconds; its exit code (negative: the signal that ended it)."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def wait_until(ready: Callable[[], bool], children: Sequence[Child], timeout_s: float) -> bool:
    """Whether `ready()` came true within `timeout_s` seconds while all children lived."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and all(child.running for child in children):
        if ready():
            return True
        time.sleep(0.05)
    return False
