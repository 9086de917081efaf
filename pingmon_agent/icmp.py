"""ICMP echo packets and the sockets they travel through, on top of icmplib's sockets and errors.

Raw or datagram? A raw socket needs root or CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW) and sees the errors
of routers as packets. Without it the agent falls back to an unprivileged "ping socket" (SOCK_DGRAM), which the kernel
grants to the groups in the sysctl net.ipv4.ping_group_range (it covers IPv6 too; "1 0" means nobody, root included).
Both measure alike: kernel time stamps on receive and, where the kernel gives them, on transmit. Linux only.
Must not know: rounds, targets, schedules.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

from icmplib import ICMPSocketError, ICMPv4Socket, ICMPv6Socket, SocketPermissionError

PAYLOAD_BYTES = 56
_HEAD = struct.Struct("!8sII")  # cookie of this process, round, index of the target
PAD = bytes(range(PAYLOAD_BYTES - _HEAD.size))
PERMISSION_HELP = (
    "no permission to send ICMP: run the agent with CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW), "
    "or allow ping sockets with `sysctl -w net.ipv4.ping_group_range='0 2147483647'`"
)

# Constants that Python's socket module does not name (asm-generic/socket.h, linux/net_tstamp.h, linux/errqueue.h).
_SO_RCVBUFFORCE, _SO_TIMESTAMPING, _SO_MEMINFO = 33, 37, 55
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_ICMP_FILTER, _ICMP6_FILTER, _IP_RECVERR, _IPV6_RECVERR = 1, 1, 11, 25
_SOL_RAW = 255
_ORIGIN_TIMESTAMP = 4
_RCVBUF = 16 * 2**20
_ANCILLARY = 256
_STAMPS = struct.Struct("@6l")  # three of the kernel's old struct timespec
_EXTENDED_ERROR = struct.Struct("@IBBBBII")
_MEMINFO = struct.Struct("@9I")  # the last is SK_MEMINFO_DROPS
_DROPPED_AT_LEAST = 2048  # bytes of buffer that one small packet and its control data take, measured below 1,100


class NoPermissionError(Exception):
    """This process may open neither kind of ICMP socket; the text says what to allow."""


class FamilyUnavailableError(Exception):
    """The kernel has no such address family (IPv6 switched off, say)."""


class Kind(Enum):
    """What came out of a socket."""

    REPLY = "reply"
    SENT = "sent"  # the kernel's transmit time stamp of our own packet
    ERROR = "error"  # somebody says that a packet of ours cannot be delivered
    FOREIGN = "foreign"  # not ours, or damaged


@dataclass(slots=True)
class Arrival:
    """One packet or error read from a socket. `stamp_ns` is CLOCK_REALTIME of the kernel, 0 if it gave none.

    `address`: who answered; for ERROR the destination of the quoted probe. `round` and `index` are -1 where an error
    quotes too little to tell; `sequence` is then all there is.
    """

    kind: Kind
    stamp_ns: int = 0
    address: str = ""
    sequence: int = -1
    round: int = -1
    index: int = -1


_NOT_OURS = Arrival(Kind.FOREIGN)


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What differs between ICMP and ICMPv6."""

    request: int
    reply: int
    errors: tuple[int, ...]
    opener: type[ICMPv4Socket] | type[ICMPv6Socket]
    recverr: tuple[int, int]
    any_address: str


_V4 = _Family(
    request=8,
    reply=0,
    errors=(3, 11, 12),
    opener=ICMPv4Socket,
    recverr=(socket.IPPROTO_IP, _IP_RECVERR),
    any_address="0.0.0.0",  # noqa: S104 - replies to every source address of this host
)
_V6 = _Family(
    request=128,
    reply=129,
    errors=(1, 2, 3, 4),
    opener=ICMPv6Socket,
    recverr=(socket.IPPROTO_IPV6, _IPV6_RECVERR),
    any_address="::",
)


class EchoSocket:
    """One non-blocking ICMP socket for one address family, shared by all targets."""

    def __init__(self, version: int, cookie: bytes) -> None:
        self.version = version
        self._family = _V4 if version == 4 else _V6
        self._cookie = cookie
        self.raw, self._holder = _open(self._family)
        self._sock: socket.socket = self._holder.sock
        self._id = secrets.randbelow(0xFFFF) + 1
        self._prepare()
        self._fixed_sum = self._sum_of_constants()

    def _prepare(self) -> None:
        sock = self._sock
        sock.setblocking(False)
        self.buffer_packets = _grow_buffer(sock) // _DROPPED_AT_LEAST
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE)
        if self.raw:
            self._filter()
        else:
            sock.setsockopt(*self._family.recverr, 1)
            sock.bind((self._family.any_address, 0))
            self._id = sock.getsockname()[1]

    def _filter(self) -> None:
        """Drop, before the kernel copies it, every ICMP type that cannot concern us."""
        wanted = (self._family.reply, *self._family.errors)
        if self.version == 4:
            mask = ~sum(1 << kind for kind in wanted) & 0xFFFFFFFF
            self._sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", mask))
            return
        words = [0xFFFFFFFF] * 8
        for kind in wanted:
            words[kind >> 5] &= ~(1 << (kind & 31))
        self._sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("@8I", *words))

    def _sum_of_constants(self) -> int:
        fixed = struct.pack("!BBHHH", self._family.request, 0, 0, self._id, 0) + self._cookie + bytes(8) + PAD
        return sum(struct.unpack(f"!{len(fixed) // 2}H", fixed))

    @property
    def overflow(self) -> int:
        """Packets the kernel dropped for want of buffer since the start, as it counts them itself."""
        drops: int = _MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
        return drops

    def close(self) -> None:
        """Close the socket; further use raises OSError."""
        self._holder.close()

    def packet(self, sequence: int, round_no: int, index: int) -> bytes:
        """An echo request; only raw ICMPv4 wants our checksum, the kernel fills in the others."""
        total = 0
        if self.raw and self.version == 4:
            total = self._fixed_sum + sequence
            total += (round_no >> 16) + (round_no & 0xFFFF) + (index >> 16) + (index & 0xFFFF)
            total = (total & 0xFFFF) + (total >> 16)
            total = ~(total + (total >> 16)) & 0xFFFF
        head = struct.pack("!BBHHH", self._family.request, 0, total, self._id, sequence)
        return head + _HEAD.pack(self._cookie, round_no, index) + PAD

    def send(self, packet: bytes, destination: tuple[Any, ...]) -> int:
        """0 once the kernel took the packet, else the errno it refused it with.

        A ping socket first hands out the pending error of an earlier packet: that one is not ours, so try once more.
        """
        for attempt in (1, 2):
            try:
                self._sock.sendto(packet, destination)
                return 0
            except OSError as err:
                refused = err.errno or errno.EIO
                if self.raw or attempt == 2 or refused in (errno.EAGAIN, errno.ENOBUFS):
                    return refused
        return errno.EIO

    def drain(self) -> list[Arrival]:
        """Everything that waits: transmit stamps and errors first, then replies."""
        found: list[Arrival] = []
        while (message := self._read(socket.MSG_ERRQUEUE)) is not None:
            found.append(self._from_error_queue(*message))
        while (message := self._read(0)) is not None:
            found.append(self._from_packet(*message))
        return found

    def _read(self, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], str] | None:
        for _ in range(16):  # a pending error of another packet comes out once, in place of a message
            try:
                data, ancillary, _, address = self._sock.recvmsg(2048, _ANCILLARY, flags)
            except BlockingIOError:
                return None
            except OSError:
                if self._sock.fileno() < 0:
                    raise
                continue
            return data, ancillary, address[0].partition("%")[0] if address else ""
        return None

    # -- reading --

    def _from_error_queue(self, data: bytes, ancillary: list[tuple[int, int, bytes]], address: str) -> Arrival:
        stamp, origin = 0, 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPING):
                stamp = _nanoseconds(value)
            elif (level, kind) == self._family.recverr:
                origin = _EXTENDED_ERROR.unpack_from(value)[1]
        if origin == _ORIGIN_TIMESTAMP:
            # The looped packet begins at its link header, whose length differs: find our cookie.
            place = data.find(self._cookie)
            return self._ours(Kind.SENT, stamp, "", data[place - 8 :]) if place >= 8 else _NOT_OURS
        return self._quoted(stamp, address, data)

    def _from_packet(self, data: bytes, ancillary: list[tuple[int, int, bytes]], address: str) -> Arrival:
        stamp = 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPING):
                stamp = _nanoseconds(value)
        if self.raw and self.version == 4 and data:
            data = data[(data[0] & 15) * 4 :]
        if len(data) < 8:
            return _NOT_OURS
        if data[0] == self._family.reply:
            return self._ours(Kind.REPLY, stamp, address, data)
        return self._quoting(stamp, data[8:]) if data[0] in self._family.errors else _NOT_OURS

    def _ours(self, kind: Kind, stamp: int, address: str, icmp: bytes) -> Arrival:
        """`icmp` is a whole echo message: ours down to the last byte of padding, or foreign."""
        if len(icmp) < 8 + PAYLOAD_BYTES or icmp[8 + _HEAD.size : 8 + PAYLOAD_BYTES] != PAD:
            return _NOT_OURS
        identity, sequence = struct.unpack_from("!HH", icmp, 4)
        cookie, round_no, index = _HEAD.unpack_from(icmp, 8)
        if cookie != self._cookie or identity != self._id:
            return _NOT_OURS
        return Arrival(kind, stamp, address, sequence, round_no, index)

    def _quoting(self, stamp: int, quote: bytes) -> Arrival:
        """An error as a raw socket sees it: the IP packet it is about, cut off after 8 or more bytes of content."""
        if self.version == 4:
            if len(quote) < 20 or quote[9] != socket.IPPROTO_ICMP:
                return _NOT_OURS
            return self._quoted(stamp, socket.inet_ntop(socket.AF_INET, quote[16:20]), quote[(quote[0] & 15) * 4 :])
        if len(quote) < 40 or quote[6] != socket.IPPROTO_ICMPV6:
            return _NOT_OURS
        return self._quoted(stamp, socket.inet_ntop(socket.AF_INET6, quote[24:40]), quote[40:])

    def _quoted(self, stamp: int, address: str, icmp: bytes) -> Arrival:
        if len(icmp) < 8 or icmp[0] != self._family.request:
            return _NOT_OURS
        identity, sequence = struct.unpack_from("!HH", icmp, 4)
        if identity != self._id:
            return _NOT_OURS
        if len(icmp) < 8 + _HEAD.size:
            return Arrival(Kind.ERROR, stamp, address, sequence)
        cookie, round_no, index = _HEAD.unpack_from(icmp, 8)
        return Arrival(Kind.ERROR, stamp, address, sequence, round_no, index) if cookie == self._cookie else _NOT_OURS


def _open(family: _Family) -> tuple[bool, ICMPv4Socket | ICMPv6Socket]:
    for raw in (True, False):
        try:
            return raw, family.opener(privileged=raw)
        except SocketPermissionError:
            continue
        except ICMPSocketError as err:
            raise FamilyUnavailableError(str(err)) from None
    raise NoPermissionError(PERMISSION_HELP)


def _grow_buffer(sock: socket.socket) -> int:
    """As large as we may; replies and transmit stamps share it. Returns the bytes granted."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RCVBUF)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF)
    granted: int = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted


def _nanoseconds(stamps: bytes) -> int:
    seconds, nanos = _STAMPS.unpack_from(stamps)[:2]
    return int(seconds * 1_000_000_000 + nanos)
