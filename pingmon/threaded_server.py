"""The HTTPS server of threading mode, with the same bounds as eventlet's. Only concurrency.py imports this."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from pingmon_agent.wire.duplex import DuplexSocket

from .gate import REQUEST_BUDGET_S, Gate, Line, hold_back


class _Handler(WSGIRequestHandler):
    """No line per request; a silent client gives its thread back, and each request has one budget."""

    timeout = REQUEST_BUDGET_S
    server: _Server
    line: Line | None = None
    websocket: DuplexSocket | None = None

    def handle(self) -> None:
        """All requests of one connection, if it is let in."""
        address, port = self.client_address[:2]
        self.line = self.server.gate.enter(address, self.connection.fileno, port)
        try:
            if self.line is not None:
                super().handle()
        except (OSError, ValueError):
            self.server.broken()

    def handle_one_request(self) -> None:
        """Read and answer one request within its budget."""
        self.timer = threading.Timer(REQUEST_BUDGET_S, self._expire)
        self.timer.daemon = True
        self.timer.start()
        try:
            super().handle_one_request()
        finally:
            self.timer.cancel()

    def _expire(self) -> None:
        if self.line is not None:
            self.line.cut()

    def make_environ(self) -> dict[str, Any]:
        """`pingmon.line`, `pingmon.received` (to call once the body is here as well), and what a websocket is read and
        written through, for it has a thread for each."""
        if self.line is None or self.line.cut_off:
            raise ConnectionAbortedError("the request took too long")
        environ: dict[str, Any] = super().make_environ()
        environ |= {"pingmon.line": self.line, "pingmon.received": self.timer.cancel}
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            self.websocket = environ["werkzeug.socket"] = DuplexSocket(self.connection)
        return environ

    def finish(self) -> None:
        """Not before the websocket's reader has left: the next connection gets the same descriptor."""
        if self.line is not None:
            self.line.ended()
        if self.websocket:
            self.websocket.release()
        super().finish()

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's signature
        """Requests are counted in /metrics, not logged."""


class _Server(ThreadedWSGIServer):
    """A thread for each connection, which also does its TLS handshake: in accept() one silent peer would stop all."""

    gate: Gate
    broken: Callable[[], None]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """A connection that breaks is a number, not a traceback."""
        self.broken()


class _LazyContext:
    """What werkzeug takes for an SSL context; it calls this alone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, listener: socket.socket, server_side: bool) -> ssl.SSLSocket:
        """As SSLContext has it, but the handshake is left to the first read."""
        return self._context.wrap_socket(listener, server_side=server_side, do_handshake_on_connect=False)


def bind(
    app: Any, host: str, port: int, family: int, context: ssl.SSLContext, gate: Gate, broken: Callable[[], None]
) -> Any:
    """A server that listens already; raises OSError."""
    # Bound here: werkzeug would print advice of its own and end the process when the port is taken.
    # "::" means both families, as in the other modes; create_server() alone would make it IPv6 only.
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    hold_back(listener)
    lazy: Any = _LazyContext(context)
    server = _Server(host, port, app, handler=_Handler, ssl_context=lazy, fd=listener.fileno())
    server.gate, server.broken = gate, broken
    server.kept_listener = listener  # type: ignore[attr-defined]  # its descriptor is the one that is listened on
    return server
