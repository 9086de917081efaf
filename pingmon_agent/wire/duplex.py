"""A TLS socket that one thread may read while others write, for both ends of the wire.

An OpenSSL connection is for one thread at a time, and CPython 3.11 does not see to it: two threads inside lose one
connection in twenty at its start, corrupt records under load, and can crash the process. Here each call into OpenSSL
is short and alone, and the waiting is done outside. Must not know: what the bytes mean.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class DuplexSocket:
    """What websocket libraries ask of a socket. `close` cuts the line; only `release` gives the descriptor back.

    A thread that still reads when the number is free would take the first bytes of the next connection, which gets
    the same number. Until the first recv or send the socket below is as it was.
    """

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._reading, self._writing, self._openssl = threading.Lock(), threading.Lock(), threading.Lock()
        self._timeout_s = tls.gettimeout()
        self._released = False
        self._closed = False  # websocket-client looks at it

    def gettimeout(self) -> float | None:
        """Seconds that a call may wait; None: for ever."""
        return self._timeout_s

    def settimeout(self, timeout_s: float | None) -> None:
        """For the calls that begin after this one."""
        self._timeout_s = timeout_s

    def fileno(self) -> int:
        """The descriptor; -1 after the release."""
        return -1 if self._released else self._tls.fileno()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, empty at the end of the connection; raises TimeoutError, OSError."""
        with self._reading:
            return self._patiently(lambda: self._tls.recv(size))

    def send(self, data: bytes) -> int:
        """How many bytes went out; raises TimeoutError, OSError."""
        with self._writing:  # OpenSSL wants a write that could not end repeated before it takes another one
            return self._patiently(lambda: self._tls.send(data))

    def shutdown(self, how: int) -> None:
        """Cut the line below TLS; raises OSError if it is cut already."""
        # Not SSLSocket.shutdown: it drops TLS first, and a thread that is sending would go on in plain text.
        socket.socket.shutdown(self._tls, how)

    def close(self) -> None:
        """Cut the line, at once and as often as one likes; whoever waits in recv or send is woken."""
        self._closed = True
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            _log.debug("connection was closed already")

    def release(self) -> None:
        """Cut the line and give the descriptor back, once nobody is inside; whoever comes later gets OSError."""
        self.close()
        with self._reading, self._writing:
            self._released = True
            self._tls.close()

    def _patiently(self, call: Callable[[], _Result]) -> _Result:
        if self._released:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            with self._openssl:
                if self._tls.gettimeout() != 0:
                    self._tls.setblocking(False)
                try:
                    return call()
                except ssl.SSLWantReadError:
                    event = select.POLLIN
                except ssl.SSLWantWriteError:
                    event = select.POLLOUT
            self._wait(event, deadline)

    def _wait(self, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self._tls, event)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left_ms):
            raise TimeoutError("the peer was silent for too long")
