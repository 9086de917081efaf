"""The HTTPS server of gevent mode, with the same bounds as eventlet's. Only concurrency.py imports this."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

from .gate import REQUEST_BUDGET_S, Gate, Line, hold_back


class _Handler(WSGIHandler):  # type: ignore[misc]
    """A connection whose every request has one budget for its headers and body."""

    def handle_one_request(self) -> Any:
        """Read and answer one request."""
        self.timer = gevent.spawn_later(REQUEST_BUDGET_S, self.server.lines[self.socket].cut)
        try:
            return super().handle_one_request()
        finally:
            self._received()

    def _received(self) -> None:
        self.timer.kill(block=False)

    def get_environ(self) -> dict[str, Any]:
        """As the parent's, and `pingmon.line`, `pingmon.received` (to call once the body is here as well)."""
        line: Line = self.server.lines[self.socket]
        if line.cut_off:
            raise ConnectionAbortedError("the request took too long")
        environ: dict[str, Any] = super().get_environ()
        environ.update({"pingmon.line": line, "pingmon.received": self._received})
        return environ


class _Server(WSGIServer):  # type: ignore[misc]
    """Counts broken handshakes instead of printing a traceback for each."""

    gate: Gate
    broken: Callable[[], None]

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """TLS, then HTTP, on one connection; gone when its request takes too long."""
        line = self.gate.enter(address[0], client_socket.fileno, address[1])
        if line is None:
            client_socket.close()
            return
        timer = gevent.spawn_later(REQUEST_BUDGET_S, line.cut)
        try:
            with self.wrap_socket(client_socket, **self.ssl_args) as secure:
                timer.kill(block=False)
                self._handle_secure(secure, address, line)
        except (OSError, ValueError):
            self.broken()
        finally:
            timer.kill(block=False)
            line.ended()

    def _handle_secure(self, secure: Any, address: Any, line: Line) -> None:
        line.follow(secure.fileno)
        self.lines[secure] = line
        try:
            self.handle(secure, address)
        finally:
            del self.lines[secure]
            line.ended()


def bind(app: Any, host: str, port: int, context: ssl.SSLContext, gate: Gate, broken: Callable[[], None]) -> Any:
    """A server that listens already; raises OSError."""
    server = _Server(
        (host, port), app, log=None, error_log=None, ssl_context=context, handler_class=_Handler, backlog=1024
    )
    server.gate, server.broken, server.lines = gate, broken, {}
    server.start()
    hold_back(server.socket)
    return server
