"""A stand-in for systemd's end of NOTIFY_SOCKET: a real datagram socket that remembers what came when.

with listening(tmp_path / "notify") as systemd:
    with running_server(tmp_path / "server", environment=systemd.environment(watchdog_s=3)):
        systemd.wait_for("READY=1")
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALIVE = "WATCHDOG=1"


class Systemd:
    """`heard`: all lines so far, oldest first."""

    def __init__(self, address: Path | str) -> None:
        self.address, self.heard = str(address), list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1) if self.address.startswith("@") else self.address)

    def environment(self, watchdog_s: float | None = None) -> dict[str, str]:
        """What a service finds in its environment."""
        watched = {} if watchdog_s is None else {"WATCHDOG_USEC": str(round(watchdog_s * 1_000_000))}
        return {"NOTIFY_SOCKET": self.address} | watched

    def next(self, timeout_s: float) -> list[str] | None:
        """The lines of the next message, None if there is none in time."""
        self._socket.settimeout(max(0.001, timeout_s))
        try:
            lines = self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return None
        self.heard += lines
        return lines

    def wait_for(self, beginning: str, deadline_s: float = 20.0) -> list[str]:
        """The next message with a line that begins so; AssertionError with all that came instead."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            lines = self.next(end - time.monotonic())
            if lines and any(line.startswith(beginning) for line in lines):
                return lines
        raise AssertionError(f"waited {deadline_s:g} s for {beginning}; heard {self.heard}")

    def fed_for(self, seconds: float, watchdog_s: float) -> bool:
        """Whether systemd would let the service live for so long from now on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self._fed(watchdog_s):
                return False
        return True

    def _fed(self, watchdog_s: float) -> bool:
        end = time.monotonic() + watchdog_s
        while (left := end - time.monotonic()) > 0:
            if ALIVE in (self.next(left) or ()):
                return True
        return False

    def close(self) -> None:
        """Nobody listens any more."""
        self._socket.close()


@contextmanager
def listening(address: Path | str) -> Iterator[Systemd]:
    """A path, or `@name` in the abstract namespace."""
    systemd = Systemd(address)
    try:
        yield systemd
    finally:
        systemd.close()
