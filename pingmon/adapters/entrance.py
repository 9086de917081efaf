"""What every HTTP request passes before Flask and Socket.IO see it: a WSGI layer, the same in all async modes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]
Wsgi = Callable[[Environ, Start], Iterable[bytes]]
RETRY_AFTER_S = 10
TOO_MANY = (
    "E_RATE: too many connections from this address wait for their handshake; try again in {} s. "
    "Where many agents share an address, list it in limits.nat of server.toml\n"
)


class Entrance:
    """`may_open` says whether one more websocket may come from an address; bodies up to `max_body` are read here."""

    def __init__(self, app: Wsgi, may_open: Callable[[str], bool], max_body: int) -> None:
        self._app, self._may_open, self._max_body = app, may_open, max_body

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """The WSGI application."""
        # Compressing a grid costs 11-30 ms per browser, and a few KB may swell to megabytes.
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        refusal = self._refuses(environ)
        if refusal is not None:
            status, text = refusal
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), ("Connection", "close")]
            headers += [("Retry-After", str(RETRY_AFTER_S))] if status.startswith("429") else []
            start_response(status, headers)
            return [text]
        if self._take_body(environ):
            environ.get("pingmon.received", lambda: None)()
        return self._app(environ, start_response)

    def _take_body(self, environ: Environ) -> bool:
        """Read the body while the request's time runs; False: it is for the application to refuse, and time runs on."""
        length = str(environ.get("CONTENT_LENGTH") or "0")
        if not length.isdecimal() or int(length) > self._max_body or environ.get("HTTP_TRANSFER_ENCODING"):
            return False
        if int(length):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        return True

    def _refuses(self, environ: Environ) -> tuple[str, bytes] | None:
        upgrade = str(environ.get("HTTP_UPGRADE", "")).lower() == "websocket"
        if upgrade and environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
            # eventlet would go on with a protocol of 2010 that has no limits at all.
            return "400 Bad Request", b"only version 13 of the websocket protocol is spoken here\n"
        if upgrade and not self._may_open(str(environ.get("REMOTE_ADDR", ""))):
            return "429 Too Many Requests", TOO_MANY.format(RETRY_AFTER_S).encode()
        return None
