"""The websocket that python-engineio reads and writes, with what each mode's own one lacks put around it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("pingmon.connections")
MAX_UNREAD, LOOK_AGAIN_S = 64, 1.0


class GuardedWebSocket:
    """What python-engineio reads and writes: the mode's own websocket, listened to before it is believed."""

    def __init__(self, heard: Callable[[Any], bool], inner: Any) -> None:
        """`heard` says of each message whether it may be taken; False ends the connection."""
        self._heard, self._inner = heard, inner
        if hasattr(inner, "ws"):
            inner.ws.input_buffer = _Unread(inner.ws.input_buffer)

    @property
    def socket(self) -> Any:
        """What engine.io sets its own timeout on."""
        return getattr(self._inner, "socket", None) or getattr(self._inner, "_sock", None)

    def wait(self) -> Any:
        """The next message, or None where the connection is to end."""
        data = self._simple() if hasattr(self._inner, "ws") else self._inner.wait()
        return data if data is not None and self._heard(data) else None

    def _simple(self) -> Any:
        """simple-websocket wakes its reader before it says that the end has come, and he may sleep on for ever."""
        websocket = self._inner.ws
        while websocket.connected or websocket.input_buffer:
            data = websocket.receive(timeout=LOOK_AGAIN_S)
            if data is not None:
                return data
        return None

    def send(self, message: Any) -> None:
        """See engine.io."""
        self._inner.send(message)

    def close(self) -> None:
        """See engine.io; a line that was cut is closed already."""
        try:
            self._inner.close()
        except OSError as error:
            log.debug("closed already: %s", error)


class _Unread(list[Any]):
    """Messages that simple-websocket has read and nobody has handled: it would go on reading without end."""

    def append(self, message: Any) -> None:
        """OSError where too many wait, which ends the connection."""
        if len(self) >= MAX_UNREAD:
            raise OSError("too many messages wait")
        super().append(message)
