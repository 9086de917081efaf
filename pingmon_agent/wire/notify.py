"""What either program says to systemd about itself: datagrams to NOTIFY_SOCKET, in the form of sd_notify(3).

The third thing beside messages and sockets that both programs do alike. Nothing said here can fail or hold up the
program: without a systemd that listens, it is said to nobody. Must not know: when the program is ready or well.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from _socket import socket as plain_socket  # not a green one: it must send where nothing may be switched
from collections.abc import Mapping, MutableMapping

_log = logging.getLogger(__name__)
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
_PATIENCE_S = 1.0  # with a systemd that is busy


class Notifier:
    """`address`: a path, `@` before an abstract one, "" for nobody. `watchdog_s`: how long it waits between two ALIVE
    before it ends the service; None: for ever."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address, self.watchdog_s = address, watchdog_s if address else None
        self._complained = False

    @property
    def active(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def say(self, *lines: str) -> bool:
        """Send `NAME=value` lines as one message. False where it did not arrive, which the log says once."""
        if not self._address:
            return False
        place = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)
        line = plain_socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            line.settimeout(_PATIENCE_S)
            line.sendto(message.encode(), place)
        except OSError as error:
            if not self._complained:
                _log.warning("systemd cannot be told %s (%s): see that NotifyAccess= lets this program speak, and "
                             "NOTIFY_SOCKET %s", lines[0], error.strerror or error, self._address)  # fmt: skip
            self._complained = True
            return False
        finally:
            line.close()
        self._complained = False
        return True

    def reloading(self) -> None:
        """The configuration is being read again; READY must follow. The time tells it from an answer to an older
        request (CLOCK_MONOTONIC, microseconds)."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def taken_from(environ: MutableMapping[str, str]) -> Notifier:
    """The notifier that systemd's variables in `environ` describe. They are removed: what this program starts is not
    the service and must not speak for it."""
    address, usec, pid = (environ.pop(name, "") for name in VARIABLES)
    if address and address[0] not in "/@":
        _log.warning("NOTIFY_SOCKET %s is neither a path nor an abstract socket; systemd is told nothing", address)
        return Notifier()
    meant = pid in ("", str(os.getpid()))
    return Notifier(address, int(usec) / 1_000_000 if meant and usec.isdecimal() and int(usec) else None)


def left_out_of(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a child, without what is meant for this process alone."""
    return {name: value for name, value in environ.items() if name not in VARIABLES}
