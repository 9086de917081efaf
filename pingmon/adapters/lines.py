"""Every Socket.IO connection as a line that can be bounded and cut, in all async modes: deadlines, output, input, end.

python-engineio keeps a socket that joins no namespace for ever, queues without end for a client that does not read, and
its disconnect() leaves TCP open or waits for the client. Both `*_socket.py` stand on this; it knows neither of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import socketio

from pingmon.gate import Bucket, Line, network_of
from pingmon.services.limits import HANDSHAKE_S, UNKNOWN_SOCKETS, Allowance
from pingmon_agent.wire.contract import MAX_MESSAGE_BYTES

from .guarded import GuardedWebSocket
from .packet import UnreadableError

log = logging.getLogger("pingmon.connections")
MAX_BACKLOG_BYTES, MAX_BACKLOG_PACKETS = 262_144, 64
MAX_BYTES_UNKNOWN = 4_096
# Of anything, ten times what an agent may say and enough for its pongs.
PACKETS_PER_S, PACKETS_BURST = 200.0, 1_000.0
MAX_CONNECTS = 3
CLIENT_PACKETS = ("1", "3", "4")  # close, pong, message: what a client of a websocket may say
TICK_S = 0.25
FAREWELL_S = 0.25
REFUSED = "refused"  # the event that answers what asked for no acknowledgement


class Talker:
    """One engine.io connection."""

    def __init__(self, eio_sid: str, environ: dict[str, Any], now: float) -> None:
        self.eio_sid, self.address = eio_sid, str(environ.get("REMOTE_ADDR", ""))
        self.peer = network_of(self.address)
        self.line: Line | None = environ.get("pingmon.line")
        self.since = now
        self.leaving = self.dead = False
        self.max_bytes = MAX_BYTES_UNKNOWN
        self.connects = 0
        self.packets = Bucket(PACKETS_PER_S, PACKETS_BURST, now)
        self.backlog_bytes = self.backlog_packets = self.largest = self._taken_bytes = self._taken_packets = 0

    def overfull(self) -> bool:
        """Whether the client leaves so much unread that nothing more is kept for it.

        Two of its largest messages always fit, for a picture may be larger than the bound.
        """
        return self.backlog_packets >= MAX_BACKLOG_PACKETS or self.backlog_bytes >= max(
            MAX_BACKLOG_BYTES, 2 * self.largest
        )

    def queued(self, size: int) -> None:
        """A packet of `size` bytes waits to be sent."""
        self.backlog_bytes += size
        self.backlog_packets += 1
        self.largest = max(self.largest, size)

    def sending(self, sizes: list[int]) -> None:
        """The sender comes for these, so what it came for before is on its way."""
        self.backlog_bytes -= self._taken_bytes
        self.backlog_packets -= self._taken_packets
        self._taken_bytes, self._taken_packets = sum(sizes), len(sizes)


class Lines:
    """All of them; hooks into the python-socketio server when it is made. `monotonic` is the services' clock."""

    def __init__(self, server: socketio.Server, allowance: Allowance, monotonic: Callable[[], float]) -> None:
        self._server, self._eio, self._allowance, self._now = server, server.eio, allowance, monotonic
        self._talkers: dict[str, Talker] = {}
        self._unknown: dict[str, None] = {}
        self.cuts: dict[str, int] = {}
        self._inner = {event: self._eio.handlers[event] for event in ("connect", "disconnect", "message")}
        self._eio.on("connect", self._connected)
        self._eio.on("disconnect", self._disconnected)
        self._eio.on("message", self._message)
        make = self._eio._async["websocket"]
        self._eio._async = {**self._eio._async, "websocket": lambda handler, eio: self._websocket(make, handler, eio)}

    def _websocket(self, make: Callable[..., Any], handler: Any, eio: Any) -> Any:
        talker = self._talkers.get(handler.__self__.sid)

        def guarded(websocket: Any) -> Any:
            return handler(GuardedWebSocket(partial(self._heard, talker), websocket) if talker else websocket)

        made = make(guarded, eio)
        if hasattr(made, "server_args"):  # simple-websocket: its limit is for a whole message, but off
            made.server_args["max_message_size"] = MAX_MESSAGE_BYTES
        return made

    # -- who is there --

    def may_open(self, address: str) -> bool:
        """Whether one more websocket may come from this address before others have shaken hands."""
        peer = network_of(address)
        allowed = self._allowance.unknown_sockets(peer)
        return allowed is None or sum(self._talkers[sid].peer == peer for sid in self._unknown) < allowed

    def _connected(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        talker = self._talkers[eio_sid] = Talker(eio_sid, environ, self._now())
        self._unknown[eio_sid] = None
        if len(self._unknown) > UNKNOWN_SOCKETS:
            self.cut(next(iter(self._unknown)), "too many without a handshake")
        self._bound_output(talker, self._eio.sockets[eio_sid])
        return self._inner["connect"](eio_sid, environ)

    def _disconnected(self, eio_sid: str, reason: str) -> None:
        self._inner["disconnect"](eio_sid, reason)
        self._unknown.pop(eio_sid, None)
        self._talkers.pop(eio_sid, None)

    def _talker(self, sid: str, namespace: str) -> Talker | None:
        return self._talkers.get(self._server.manager.eio_sid_from_sid(sid, namespace) or "")

    def settle(self, sid: str, namespace: str) -> None:
        """The client has shown that it has a right to be here: no deadline any more."""
        talker = self._talker(sid, namespace)
        if talker is None:
            return
        self._unknown.pop(talker.eio_sid, None)
        if talker.line is not None:
            talker.line.settle()

    def trust(self, sid: str, namespace: str) -> None:
        """It may send messages of full size from now on."""
        talker = self._talker(sid, namespace)
        if talker is not None:
            talker.max_bytes = MAX_MESSAGE_BYTES

    def unsettle(self, sid: str, namespace: str) -> None:
        """It has left its namespace: a stranger again, with a new deadline."""
        talker = self._talker(sid, namespace)
        if talker is not None and not talker.dead:
            talker.since = self._now()
            self._unknown[talker.eio_sid] = None

    # -- the end --

    def hard_close(self, sid: str, namespace: str, why: str) -> None:
        """Cut the connection at once, read or not, sent or not."""
        talker = self._talker(sid, namespace)
        if talker is not None:
            self.cut(talker.eio_sid, why)

    def hang_up(self, sid: str, namespace: str, why: str) -> None:
        """Hear nothing more from it, say goodbye, and cut the connection once that is out, or a moment later."""
        talker = self._talker(sid, namespace)
        if talker is not None:
            talker.leaving = True
            self._server.start_background_task(self._farewell, talker, why)
        self._server.disconnect(sid, namespace=namespace)

    def _farewell(self, talker: Talker, why: str) -> None:
        for _ in range(5):
            self._server.sleep(FAREWELL_S / 5)
            if talker.backlog_packets == 0 or talker.dead:
                break
        self.cut(talker.eio_sid, why)

    def cut(self, eio_sid: str, why: str) -> None:
        """As `hard_close`, by the number of the connection."""
        talker, socket = self._talkers.get(eio_sid), self._eio.sockets.get(eio_sid)
        if talker is None or talker.dead:
            return
        talker.dead = True
        self.cuts[why] = self.cuts.get(why, 0) + 1
        log.warning("connection cut from=%s: %s", talker.address, why)
        if talker.line is not None:
            talker.line.cut()
        if socket is not None:
            socket.close(wait=False, abort=True, reason=self._eio.reason.SERVER_DISCONNECT)

    def run(self) -> None:
        """Cut who does not shake hands in time; belongs in a background task."""
        while True:
            self._server.sleep(TICK_S)
            due = self._now() - HANDSHAKE_S
            for eio_sid in [sid for sid in self._unknown if self._talkers[sid].since <= due]:
                self.cut(eio_sid, "no handshake in time")

    # -- what goes out --

    def _bound_output(self, talker: Talker, socket: Any) -> None:
        put, take = socket.send, socket.poll

        def send(packet: Any) -> None:
            if talker.dead:
                return
            if talker.overfull():
                self.cut(talker.eio_sid, "does not read")
                return
            talker.queued(_size(packet))
            put(packet)

        def poll() -> list[Any]:
            talker.sending([])
            packets: list[Any] = take()
            talker.sending([_size(packet) for packet in packets if packet is not None])
            return packets

        talker.queued(sum(_size(packet) for packet in list(socket.queue.queue)))
        socket.send, socket.poll = send, poll

    # -- what comes in --

    def _heard(self, talker: Talker, data: Any) -> bool:
        """A websocket message as it comes; False: it ends the connection."""
        if talker.dead:
            return False
        if isinstance(data, str) and data[:1] not in CLIENT_PACKETS:
            self.cut(talker.eio_sid, "no Engine.IO")
            return False
        if not talker.packets.take(self._now()):
            self.cut(talker.eio_sid, "far too many messages")
            return False
        if len(data) > talker.max_bytes:
            self._refuse(talker, "E_TOO_LARGE", f"before approval a message may have {talker.max_bytes} bytes")
            self._server.start_background_task(self._farewell, talker, "message too large")
            return False
        self._server.sleep(0)  # with messages in plenty reading never waits, and nobody else would run
        return not talker.dead

    def _message(self, eio_sid: str, data: Any) -> None:
        talker = self._talkers.get(eio_sid)
        if talker is None or talker.dead or talker.leaving or isinstance(data, bytes):
            return  # nothing in the contract carries bytes; what announced them was answered
        talker.connects += isinstance(data, str) and data.startswith("0")
        if talker.connects > MAX_CONNECTS:
            self.cut(eio_sid, "too many namespaces")
            return
        try:
            self._inner["message"](eio_sid, data)
        except UnreadableError as error:
            if not self._refuse(talker, "E_MALFORMED", str(error)):
                self.cut(eio_sid, "no Socket.IO")

    def _refuse(self, talker: Talker, code: str, message: str) -> bool:
        """Tell it what is wrong wherever it listens; False: it listens nowhere."""
        body = {"ok": False, "code": code, "message": message}
        joined = list(self._joined(talker))
        for sid, namespace in joined:
            self._server.emit(REFUSED, body, to=sid, namespace=namespace)
        return bool(joined)

    def _joined(self, talker: Talker) -> Iterator[tuple[str, str]]:
        for namespace in list(self._server.manager.get_namespaces()):
            sid = self._server.manager.sid_from_eio_sid(talker.eio_sid, namespace)
            if sid is not None and self._server.manager.is_connected(sid, namespace):
                yield sid, namespace


def _size(packet: Any) -> int:
    return len(packet.encode())
