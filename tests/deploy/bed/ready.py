"""Hearing from a host that it is up: systemd-nspawn passes the host's READY=1 to a datagram socket.

Must not know: how the host was started.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType

_LEADER = "X_NSPAWN_LEADER_PID="


class ReadinessSocket:
    """Bound before the host starts; `wait` returns the process id of the host's first process."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def __enter__(self) -> ReadinessSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def wait(self, deadline_s: float) -> int:
        """The leader's pid once the host says that it is up (multi-user target reached); else TimeoutError."""
        end, leader = time.monotonic() + deadline_s, 0
        while True:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            for line in self._socket.recv(4096).decode().splitlines():
                if line.startswith(_LEADER):
                    leader = int(line.removeprefix(_LEADER))
                if line == "READY=1":
                    return leader
