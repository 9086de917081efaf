"""The other half of the door to eventlet: what its HTTP and websocket server lacks. Only concurrency.py imports this.

- A listener whose accept() outlives anything: in eventlet a peer that resets its connection early, or a process out of
  descriptors, ends the server.
- One budget for a whole request instead of a timeout per byte.
- A limit for a whole websocket message instead of one per frame, and for how often control frames come.
"""

from __future__ import annotations

import errno
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

import eventlet
from eventlet import GreenPool, hubs, websocket, wsgi
from eventlet.green.ssl import GreenSSLSocket

from .gate import REQUEST_BUDGET_S, Bucket, Gate, Line

# A frame comes in pieces as small as the network likes, at worst one per byte; empty ones would have no end.
MAX_PIECES = 70_000
CONTROL_FRAMES_PER_S, CONTROL_FRAMES_BURST = 5, 50
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
FULL_PAUSE_S, FULL_LOG_EVERY_S = 0.1, 60.0
BREATHE_EVERY = 16
log = logging.getLogger("pingmon.connections")


class Listener:
    """What eventlet.wsgi accepts connections from: TLS is begun here and shaken hands on in the connection's thread."""

    def __init__(self, plain: Any, context: ssl.SSLContext, gate: Gate, broken: Callable[[], None]) -> None:
        self._plain, self._context, self._gate, self._broken = plain, context, gate, broken
        self._logged_at, self._accepted = -FULL_LOG_EVERY_S, 0
        self.family, self.closed = plain.family, False

    def accept(self) -> tuple[Any, Any]:
        """The next connection that is let in, and its address; OSError once this is closed, and never before."""
        while True:
            self._accepted += 1
            if self._accepted % BREATHE_EVERY == 0:
                eventlet.sleep(0)  # with connections in plenty accept() never waits, and nobody else would run
            try:
                plain, address = self._plain.accept()
            except OSError as error:
                if self.closed:
                    raise
                self._failed(error)
                continue
            secure = self._let_in(plain, address)
            if secure is not None:
                return secure, address

    def _failed(self, error: OSError) -> None:
        if error.errno not in FULL:
            self._broken()
            return
        if time.monotonic() - self._logged_at >= FULL_LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.error("no connection can be accepted (%s); those that are open stay. Raise the limit of open files "
                      "(LimitNOFILE=)", error.strerror)  # fmt: skip
        eventlet.sleep(FULL_PAUSE_S)

    def _let_in(self, plain: Any, address: Any) -> Any:
        line = self._gate.enter(address[0], plain.fileno, address[1])
        if line is None:
            plain.close()
            return None
        try:
            secure = GreenSSLSocket(
                plain, server_side=True, _context=self._context, do_handshake_on_connect=False,
                suppress_ragged_eofs=True,
            )  # fmt: skip
        except (OSError, ValueError):  # the peer was gone again
            self._broken()
            line.ended()
            plain.close()
            return None
        line.follow(secure.fileno)
        secure.pingmon_line = line
        return secure

    def getsockname(self) -> Any:
        """The address that is listened on."""
        return self._plain.getsockname()

    def do_handshake(self) -> None:
        """Never called: eventlet.wsgi takes a socket that has this for one of TLS, and says so to the application."""

    def close(self) -> None:
        """Accept nothing more."""
        self.closed = True
        self._plain.close()


class Protocol(wsgi.HttpProtocol):  # type: ignore[misc]
    """A connection whose every request has one budget: TLS handshake, headers and body together."""

    def handle_one_request(self) -> None:
        """Read and answer one request."""
        self._timer = hubs.get_hub().schedule_call_global(REQUEST_BUDGET_S, self.request.pingmon_line.cut)
        try:
            super().handle_one_request()
        finally:
            self._timer.cancel()

    def get_environ(self) -> dict[str, Any]:
        """As the parent's, and `pingmon.line`, `pingmon.received` (to call once the body is here as well)."""
        line: Line = self.request.pingmon_line
        if line.cut_off:
            raise ConnectionAbortedError("the request took too long")
        environ: dict[str, Any] = super().get_environ()
        return environ | {"pingmon.line": line, "pingmon.received": self._timer.cancel}


class QuietPool(GreenPool):  # type: ignore[misc]
    """A green pool in which a broken TLS handshake is a number, not a traceback."""

    def __init__(self, size: int, broken: Callable[[], None]) -> None:
        super().__init__(size)
        self._broken = broken

    def waitall(self) -> None:
        """Stopping does not wait for websockets: they end when their clients want, and the process ends now."""

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As the parent; `args` is what eventlet.wsgi knows of one connection."""
        return super().spawn(self._guard, function, *args, **kwargs)

    def _guard(self, function: Callable[..., Any], connection: Any, **kwargs: Any) -> None:
        try:
            function(connection, **kwargs)
        except (OSError, ValueError):  # ssl.SSLError and TimeoutError are OSErrors
            self._broken()
        finally:
            connection[1].pingmon_line.ended()


def limit_messages() -> str:
    """Hold eventlet's websockets to one limit for a whole message. Returns "" or why they were left alone."""
    socket_class: Any = getattr(websocket, "RFC6455WebSocket", None)
    message: Any = getattr(socket_class, "Message", None)
    if not hasattr(message, "push") or not hasattr(socket_class, "_handle_control_frame"):
        return "eventlet.websocket.RFC6455WebSocket is another one: fragments are not limited"
    push, control = message.push, socket_class._handle_control_frame

    def limited_push(self: Any, data: bytes, final: bool = False) -> None:
        self.size = getattr(self, "size", 0) + len(data)
        if self.size > self.max_frame_length or (not final and len(self.data) >= MAX_PIECES):
            raise websocket.FailedConnectionError(1009, f"a message may have {self.max_frame_length} bytes")
        if len(self.data) % BREATHE_EVERY == BREATHE_EVERY - 1:
            eventlet.sleep(0)
        push(self, data, final)

    def limited_control(self: Any, opcode: int, data: bytes) -> None:
        now = time.monotonic()
        if not hasattr(self, "controls"):
            self.controls = Bucket(CONTROL_FRAMES_PER_S, CONTROL_FRAMES_BURST, now)
        if not self.controls.take(now):
            raise websocket.FailedConnectionError(1008, "too many control frames")
        control(self, opcode, data)

    message.push, socket_class._handle_control_frame = limited_push, limited_control
    return ""
