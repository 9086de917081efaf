"""Who may connect, and how a connection is cut: counted by address, below HTTP, in every async mode.

A connection is a stranger's until its websocket has shown that it has a right to be there (`Line.settle`). Strangers
are few per address, and of all strangers the oldest goes when there are too many, so that an attacker with many
addresses pushes out himself. Must not know: TLS, HTTP, eventlet, gevent, what is said on a connection.
"""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import resource
import socket
import struct
import termios
import time
from _socket import socket as plain_socket  # not the green one: cutting must never wait
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

# What a request (TLS handshake, headers and body) may take in all, in seconds.
REQUEST_BUDGET_S: Final = 15.0
MAX_CONNECTIONS: Final = 10_000
MAX_STRANGERS: Final = 5_000
STRANGERS_PER_ADDRESS: Final = 200  # a whole office behind one address, each browser with six
# Databases, logs and pages need descriptors too, when connections have taken all they may.
RESERVED_FILES: Final = 128
MAX_UNSENT_BYTES: Final = 131_072
LOG_EVERY_S: Final = 60.0


log = logging.getLogger("pingmon.connections")


class Bucket:
    """`burst` tokens, filled up again at `rate` per second; `now` is any clock in seconds that never goes back."""

    __slots__ = ("_at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.tokens, self._at = rate, burst, burst, now

    def take(self, now: float, cost: float = 1.0) -> bool:
        """True and `cost` tokens fewer, or False and none fewer."""
        self.tokens = min(self.burst, self.tokens + (now - self._at) * self.rate)
        self._at = now
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def give_back(self, tokens: float) -> None:
        """What was taken turned out to cost less."""
        self.tokens = min(self.burst, self.tokens + tokens)

    def full(self, now: float) -> bool:
        """Whether nothing is known any more that a new bucket would not know."""
        return self.tokens + (now - self._at) * self.rate >= self.burst


def hold_back(listener: Any) -> None:
    """Let the kernel keep little of what a connection of this listener has not sent yet: else a peer that does not read
    has up to 4 MB there before anybody notices."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)


def network_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 that an IPv6 host may choose its address in."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)).network_address)
    return str(parsed)


def _unmapped(address: str) -> str:
    """An IPv4 peer as itself, also where it came to a socket for both families."""
    return address.removeprefix("::ffff:")


class Line:
    """One TCP connection that was let in. `fileno` says its descriptor, -1 once it is closed."""

    def __init__(self, gate: Gate, peer: str, fileno: Callable[[], int]) -> None:
        self._gate, self.peer, self._fileno = gate, peer, fileno
        self._lock = Lock()
        self.settled = self.cut_off = self._over = False

    def follow(self, fileno: Callable[[], int]) -> None:
        """The descriptor belongs to another object from now on (TLS has taken it over)."""
        self._fileno = fileno

    def settle(self) -> None:
        """It has a right to be here: no stranger's any more."""
        self._gate.no_stranger(self)
        self.settled = True

    def cut(self) -> None:
        """End the connection now, without waiting for anything; whoever reads or writes on it is woken.

        What the peer has not fetched yet is thrown away, for it would keep the end from arriving (RST instead of FIN).
        """
        with self._lock:
            self.cut_off = True
            descriptor = -1 if self._over else self._fileno()
            if descriptor >= 0:
                _shut(descriptor)

    def ended(self) -> None:
        """The connection is about to be closed; call before its descriptor is given back."""
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._gate.left(self)


def _shut(descriptor: int) -> None:
    try:
        raw = plain_socket(fileno=descriptor)
    except OSError:
        return  # closed by the other side and given back already
    try:
        unsent = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        if unsent:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("the other side was faster: %s", error)
    finally:
        raw.detach()


class Gate:
    """All connections of this process. `per_address` says how many strangers a peer may have (None: any number)."""

    def __init__(
        self, per_address: Callable[[str], int | None] = lambda _peer: STRANGERS_PER_ADDRESS, most: int | None = None
    ) -> None:
        self._per_address = per_address
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES
        self.most = most or max(16, min(MAX_CONNECTIONS, room))
        self._most_strangers = min(MAX_STRANGERS, self.most // 2)
        self._strangers: dict[Line, None] = {}
        self._by_peer: dict[str, int] = {}
        self._blocked: dict[str, float] = {}
        self._expected: set[tuple[str, int]] = set()
        self._lock = Lock()
        self.open = self.refused = self.evicted = 0
        self._logged_at = -LOG_EVERY_S

    @contextmanager
    def expecting(self, address: str, port: int) -> Iterator[None]:
        """Meanwhile the connection from this address and port, which are this process's own, is let in whatever else
        there is: no limit may look like a server that does not answer itself."""
        own = _unmapped(address), port
        self._expected.add(own)
        try:
            yield
        finally:
            self._expected.discard(own)

    def enter(self, address: str, fileno: Callable[[], int], port: int = 0) -> Line | None:
        """A new connection from `address`: its line, or None where it is to be closed at once."""
        peer = network_of(address)
        line, eldest = Line(self, peer, fileno), None
        if (_unmapped(address), port) in self._expected:
            with self._lock:
                self.open += 1
            return line
        if self.open >= self.most or len(self._strangers) >= self._most_strangers:
            self._say_full()
        with self._lock:
            if not self._admits(peer):
                self.refused += 1
                return None
            self.open += 1
            self._strangers[line] = None
            self._by_peer[peer] = self._by_peer.get(peer, 0) + 1
            if len(self._strangers) > self._most_strangers:
                eldest = next(iter(self._strangers))
                self._forget(eldest)
                self.evicted += 1
        if eldest is not None:
            eldest.cut()
        return line

    def _say_full(self) -> None:
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.error("%d connections are open, %d of them without a handshake: some are turned away. If they are "
                      "agents, raise the limit of open files (LimitNOFILE=)", self.open, self.strangers)  # fmt: skip

    def _admits(self, peer: str) -> bool:
        if self.open >= self.most or time.monotonic() < self._blocked.get(peer, 0.0):
            return False
        allowed = self._per_address(peer)
        return allowed is None or self._by_peer.get(peer, 0) < allowed

    def block(self, peer: str, seconds: float) -> None:
        """Let nothing in from `peer` for a while; what is open stays."""
        now = time.monotonic()
        with self._lock:
            self._blocked = {known: until for known, until in self._blocked.items() if until > now}
            self._blocked[peer] = now + seconds

    @property
    def strangers(self) -> int:
        """Connections that have not shown a right to be here yet."""
        return len(self._strangers)

    def no_stranger(self, line: Line) -> None:
        """See `Line.settle`."""
        with self._lock:
            self._forget(line)

    def left(self, line: Line) -> None:
        """See `Line.ended`."""
        with self._lock:
            self._forget(line)
            self.open -= 1

    def _forget(self, line: Line) -> None:
        if line not in self._strangers:
            return
        del self._strangers[line]
        left = self._by_peer[line.peer] - 1
        if left:
            self._by_peer[line.peer] = left
        else:
            del self._by_peer[line.peer]
