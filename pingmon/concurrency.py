"""The one door to eventlet and gevent. `install()` patches; the server calls it before it imports anything else.

`PINGMON_ASYNC_MODE` = eventlet (default), gevent or threading; a variable, for it must be known before anything else.
Without `install()` (other commands, tests) the mode is threading and nothing is patched. What eventlet's own server
lacks is in eventlet_cures.py, which only this file imports.
Everybody else uses plain `threading` and `time.sleep`, which are green after the patch, and two functions from here:
`run_blocking` for work that would stop every other green thread, and `Server`.

Rule for what is given to `run_blocking`: plain C or DBAPI work. No logging, no ORM, no metrics, no emit: with green
locks held by native threads the whole process stops for good (eventlet#432).
"""

from __future__ import annotations

import os
import resource
import ssl
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .gate import Gate

P = ParamSpec("P")
T = TypeVar("T")
MODES = ("eventlet", "gevent", "threading")
# Silence for this long on a fresh connection closes it; websockets have engine.io's own pings.
SOCKET_TIMEOUT_S = 15
BACKLOG = 1024  # what may wait for accept() in a second of a whole fleet's return


class ModeError(Exception):
    """PINGMON_ASYNC_MODE names no mode; the text says which there are."""


_mode = "threading"


def mode() -> str:
    """The mode this process runs in."""
    return _mode


def install() -> str:
    """Patch the process for the mode of PINGMON_ASYNC_MODE. Returns a remark for the log, or "". Raises ModeError."""
    global _mode
    chosen = os.environ.get("PINGMON_ASYNC_MODE", "eventlet")
    if chosen not in MODES:
        raise ModeError(f"PINGMON_ASYNC_MODE={chosen!r} is no mode; use one of {', '.join(MODES)}")
    _mode = chosen
    _raise_file_limit()
    if chosen == "eventlet":
        return _install_eventlet()
    if chosen == "gevent":
        from gevent import monkey

        monkey.patch_all()
    return ""


def _install_eventlet() -> str:
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    import eventlet
    from eventlet import patcher

    eventlet.monkey_patch()
    _native_log_locks(patcher.original("threading"))
    from .eventlet_cures import limit_messages

    return _patch_unmasking() or limit_messages()


def _native_log_locks(native: Any) -> None:
    """Give every log handler, also a later one, a lock of the operating system: a green lock taken in a native thread
    never comes free again."""
    import logging
    import weakref

    def create_lock(handler: logging.Handler) -> None:
        handler.lock = native.RLock()

    logging._lock = native.RLock()  # type: ignore[attr-defined]
    logging.Handler.createLock = create_lock  # type: ignore[method-assign, assignment]
    references: list[weakref.ref[logging.Handler]] = logging._handlerList  # type: ignore[attr-defined]
    for reference in references:
        handler = reference()
        if handler is not None:
            handler.createLock()


def unmask(data: bytes | bytearray, mask: bytes, offset: int = 0) -> bytes:
    """A websocket payload with its mask taken off: four translations in C instead of a loop over bytes."""
    plain = bytearray(data)
    for i in range(4):
        plain[i::4] = plain[i::4].translate(_XOR[mask[(offset + i) & 3]])
    return bytes(plain)


_XOR: Final = tuple(bytes(value ^ key for value in range(256)) for key in range(256))


def _patch_unmasking() -> str:
    """Put `unmask` in the place of eventlet's byte loop (0.2 us a byte, on the hub) if it still does what that does.

    Returns "" or why it was left alone.
    """
    from eventlet import websocket

    stock = getattr(getattr(websocket, "RFC6455WebSocket", None), "_apply_mask", None)
    if stock is None:
        return "eventlet.websocket.RFC6455WebSocket._apply_mask is gone"
    sample, key = bytes(range(256)) * 2 + b"abc", b"\x01\x80\xff\x5a"
    for offset in range(5):
        if bytes(stock(sample, key, offset=offset)) != unmask(sample, key, offset):
            return "eventlet's unmasking gives another result than ours"

    def apply_mask(payload: bytes, mask: bytes, length: int | None = None, offset: int = 0) -> bytes:
        return unmask(payload if length is None else payload[:length], mask, offset)

    websocket.RFC6455WebSocket._apply_mask = staticmethod(apply_mask)
    return ""


def _raise_file_limit() -> None:
    # Running out of descriptors in accept() ends the eventlet server.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking C or DBAPI work off the hub and return its result (see the rule above)."""
    if _mode == "eventlet":
        from eventlet import tpool

        result: T = tpool.execute(function, *args, **kwargs)
        return result
    if _mode == "gevent":
        import gevent

        green: T = gevent.get_hub().threadpool.apply(function, args, kwargs)
        return green
    return function(*args, **kwargs)


class Server:
    """The HTTPS server of the mode. `run()` blocks until `stop()`; the address is bound when this is made.

    `gate` counts connections and says which may come in. Raises OSError when the address cannot be bound.
    """

    def __init__(self, app: Any, host: str, port: int, context: ssl.SSLContext, gate: Gate | None = None) -> None:
        from .gate import Gate as AnyGate  # not before the patch: it has locks

        self._app, self._context, self.gate = app, context, gate or AnyGate()
        self.bad_connections = 0
        self._stop: Callable[[], None]
        self.port: int
        start = {"eventlet": self._eventlet, "gevent": self._gevent, "threading": self._threading}[_mode]
        self.run: Callable[[], None] = start(host, port)

    def _broken(self) -> None:
        self.bad_connections += 1

    def stop(self) -> None:
        """Accept nothing more and let `run()` return; may be called from a signal handler."""
        # A signal arrives inside the hub, where nothing may be switched: somebody else must do it.
        if _mode == "eventlet":
            import eventlet

            eventlet.spawn_n(self._stop)
        elif _mode == "gevent":
            import gevent

            gevent.spawn(self._stop)
        else:
            import threading

            threading.Thread(target=self._stop, daemon=True).start()

    def _eventlet(self, host: str, port: int) -> Callable[[], None]:
        import logging

        import eventlet
        from eventlet import wsgi

        from .eventlet_cures import Listener, Protocol, QuietPool
        from .gate import hold_back

        log = logging.getLogger("eventlet.wsgi")
        log.setLevel(logging.WARNING)
        plain = eventlet.listen((host, port), family=_family(host), backlog=BACKLOG, reuse_port=False)
        hold_back(plain)
        self.port = int(plain.getsockname()[1])
        listener = Listener(plain, self._context, self.gate, self._broken)
        settings = {"log": log, "log_output": False, "debug": False, "socket_timeout": SOCKET_TIMEOUT_S}
        settings |= {"protocol": Protocol, "custom_pool": QuietPool(self.gate.most + 1, self._broken)}

        def run() -> None:
            greenlet = eventlet.spawn(wsgi.server, listener, self._app, **settings)
            self._stop = lambda: eventlet.kill(greenlet)
            try:
                greenlet.wait()
            except eventlet.greenlet.GreenletExit:
                return

        self._stop = listener.close
        return run

    def _gevent(self, host: str, port: int) -> Callable[[], None]:
        from .gevent_server import bind

        server = bind(self._app, host, port, self._context, self.gate, self._broken)
        self.port = int(server.server_port)
        self._stop = server.stop
        run: Callable[[], None] = server.serve_forever
        return run

    def _threading(self, host: str, port: int) -> Callable[[], None]:
        from .threaded_server import bind

        server = bind(self._app, host, port, _family(host), self._context, self.gate, self._broken)
        self.port = int(server.port)
        self._stop = server.shutdown
        run: Callable[[], None] = server.serve_forever
        return run


def _family(host: str) -> int:
    import socket

    return socket.AF_INET6 if ":" in host else socket.AF_INET
