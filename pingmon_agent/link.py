"""One Socket.IO connection over a TLS socket of our own: the only file that names the library.

Its handlers run in threads of their own and in no sure order, so all they do is put a message into one inbox.
Must not know: what the messages mean, when to come back.
"""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import socketio

from .config import Server
from .tls import CONNECT_TIMEOUT_S, ConnectError, Fault, connect
from .wire.contract import EVENT_HANDSHAKE, EVENT_TARGETS, NAMESPACE, ErrorCode
from .wire.duplex import DuplexSocket

Json = dict[str, Any]
_TARGETS_TIMEOUT_S = 10.0
CLOSE_S = 0.4
_RETRY_LATER = {"ok": False, "code": str(ErrorCode.SERVER), "message": "this agent is closing the connection"}


class _Packet(socketio.packet.Packet):  # type: ignore[misc]  # the library is untyped
    """Without the search for bytes among the values, which costs five times as much as encoding a large report."""

    uses_binary_events = False


@dataclass(frozen=True)
class Message:
    """One thing that happened on a connection."""

    kind: str  # answer, push, targets, ack, lost, wake
    body: object = None
    token: int = 0
    reply: queue.SimpleQueue[Json] | None = None


class Link:
    """One connection, once: opened, used, closed. Everything that happens on it ends up in `inbox`."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[Message] = queue.Queue()
        self._socket: DuplexSocket | None = None
        self._client: Any = None

    def open(self, server: Server, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Connect and join the namespace; raises ConnectError."""
        tls = connect(server.host, server.port, context, server.ca_file)
        self._socket = DuplexSocket(tls)
        # The library gets a socket that is connected and verified already: no proxy, CA or key log variable applies.
        options: Json = {"socket": self._socket, "sslopt": {"context": context}}
        options |= {"suppress_origin": True, "http_no_proxy": ["*"]}
        self._client = socketio.Client(
            serializer=_Packet,
            reconnection=False,
            handle_sigint=False,
            request_timeout=CONNECT_TIMEOUT_S,
            websocket_extra_options=options,
        )
        self._listen()
        host = f"[{server.host}]" if ":" in server.host else server.host
        try:
            self._client.connect(
                f"https://{host}:{server.port}",
                transports=["websocket"],
                namespaces=[NAMESPACE],
                wait_timeout=CONNECT_TIMEOUT_S,
            )
        except socketio.exceptions.SocketIOError as err:
            why = f"what answers there is no pingmon server, or it turns agents away ({err}); check server.url"
            raise ConnectError(Fault.NOT_PINGMON, why) from None
        return tls

    def _listen(self) -> None:
        on = self._client.on
        on("disconnect", self._putter("lost"), namespace=NAMESPACE)
        on(EVENT_HANDSHAKE, self._putter("push"), namespace=NAMESPACE)
        on(EVENT_TARGETS, self._targets, namespace=NAMESPACE)

    def _putter(self, kind: str, token: int = 0) -> Callable[..., None]:
        """A handler that takes as many arguments as the peer sends, and keeps the first."""

        def put(*args: object) -> None:
            self.inbox.put(Message(kind, args[0] if args else None, token))

        return put

    def _targets(self, *args: object) -> Json:
        """Wait in the library's thread until the inbox has come to this message: what is returned is the ack."""
        reply: queue.SimpleQueue[Json] = queue.SimpleQueue()
        self.inbox.put(Message("targets", args[0] if args else None, reply=reply))
        try:
            return reply.get(timeout=_TARGETS_TIMEOUT_S)
        except queue.Empty:
            return _RETRY_LATER

    def emit(self, event: str, payload: Json, kind: str, token: int = 0) -> None:
        """Send `event`; its acknowledgement comes as a message of `kind`. A dead connection shows as `lost`."""
        try:
            self._client.emit(event, payload, namespace=NAMESPACE, callback=self._putter(kind, token))
        except socketio.exceptions.SocketIOError as err:
            self.inbox.put(Message("lost", str(err)))

    def close(self) -> None:
        """Say goodbye for a moment, then cut the line; never blocks for long."""
        if self._socket is None:
            return
        farewell = threading.Thread(target=self._farewell, daemon=True)
        farewell.start()
        farewell.join(CLOSE_S)
        self._socket.release()

    def _farewell(self) -> None:
        if self._client.connected:
            self._client.disconnect()
