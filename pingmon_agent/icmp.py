"""The ICMP sockets: which kind, what they let through, how they stamp. Opened by icmplib, tuned here.

Raw or datagram? A raw socket needs root or CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW) and sees the errors
of routers as packets. Without it the agent falls back to an unprivileged "ping socket" (SOCK_DGRAM), which the kernel
grants to the groups in the sysctl net.ipv4.ping_group_range (it covers IPv6 too; "1 0" means nobody, root included).
Both measure alike, by the kernel's time stamps. Buffers: with CAP_NET_ADMIN 16 MB, else what net.core.rmem_max allows.
The default of that holds 330 packets, so a round of thousands is sent in more and smaller ticks and costs a quarter
more; `sysctl -w net.core.rmem_max=16777216` is the cure that needs no capability.
Linux only. Must not know: rounds, targets, schedules.
"""

from __future__ import annotations

import ctypes
import secrets
import socket
import struct

from icmplib import ICMPSocketError, ICMPv4Socket, ICMPv6Socket, SocketPermissionError

from .packet import V4, V6
from .plan import STANDARD, Way

PERMISSION_HELP = (
    "no permission to send ICMP: run the agent with CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW), "
    "or allow ping sockets with `sysctl -w net.ipv4.ping_group_range='0 2147483647'`"
)

# Constants that Python's socket module does not name (asm-generic/socket.h, linux/net_tstamp.h, linux/in.h).
SO_TIMESTAMPING = 37
IP_RECVERR, IPV6_RECVERR = 11, 25
_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MEMINFO = 26, 32, 33, 55
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE, _OPT_ID, _OPT_TSONLY = 1 << 1, 1 << 3, 1 << 4, 1 << 7, 1 << 11
_STAMPING = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_TSONLY
_ICMP_FILTER, _ICMP6_FILTER, _SOL_RAW = 1, 1, 255
_IP_MTU_DISCOVER, _PMTUDISC_DONT, _PMTUDISC_DO = 10, 0, 2
_IPV6_TCLASS = 67
_RCVBUF, _SNDBUF = 16 * 2**20, 4 * 2**20
_MEMINFO = struct.Struct("@9I")  # the last is SK_MEMINFO_DROPS
_PACKET_TAKES = 1280  # bytes of buffer for a reply or a transmit stamp with its bookkeeping, measured below 1,100

# Classic BPF (linux/filter.h): what the few instructions below are called there.
_LDX_MSH, _LDB_X, _LDH_X, _LDB, _LDH, _TAX = 0xB1, 0x50, 0x48, 0x30, 0x28, 0x07
_AND, _LSH, _ADD_X, _JEQ, _RET = 0x54, 0x64, 0x0C, 0x15, 0x06


class NoPermissionError(Exception):
    """This process may open neither kind of ICMP socket; the text says what to allow."""


class FamilyUnavailableError(Exception):
    """The kernel has no such address family (IPv6 switched off, say)."""


class EchoSocket:
    """One non-blocking ICMP socket for one address family, shared by all targets. `identity`: the id of its echoes."""

    def __init__(self, version: int, way: Way = STANDARD) -> None:
        """Raises NoPermissionError, FamilyUnavailableError, and OSError where this host has no such source address."""
        self.way = way
        self.format = V4 if version == 4 else V6
        self.raw, self._holder = _open(version)
        self._sock: socket.socket = self._holder.sock
        self.identity = secrets.randbelow(0xFFFF) + 1
        self._prepare()

    def _prepare(self) -> None:
        sock = self._sock
        sock.setblocking(False)
        # Replies and transmit stamps wait in one, a tick's probes on their way to a slow device in the other.
        _grow(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _SNDBUF)
        granted = _grow(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _RCVBUF)
        self.room = granted // _PACKET_TAKES  # packets that may wait unread, stamps included
        self._dress()
        if self.raw:
            self._filter()
        elif self.format is V4:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        if self.way.source or not self.raw:
            # Unbound, a ping socket has no id yet; bound to nothing it takes replies to every address of this host.
            sock.bind((self.way.source or ("0.0.0.0" if self.format is V4 else "::"), 0))  # noqa: S104
        if not self.raw:
            self.identity = sock.getsockname()[1]
        self.restart_stamps()

    def _dress(self) -> None:
        """How probes leave."""
        sock, way = self._sock, self.way
        if self.format is V4:
            # Set, "don't fragment" also makes the IP id 0, which some networks drop.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO if way.df else _PMTUDISC_DONT)
        level = socket.IPPROTO_IP if self.format is V4 else socket.IPPROTO_IPV6
        ttl, tos = (socket.IP_TTL, socket.IP_TOS) if self.format is V4 else (socket.IPV6_UNICAST_HOPS, _IPV6_TCLASS)
        if way.ttl:
            sock.setsockopt(level, ttl, way.ttl)
        if way.dscp:
            sock.setsockopt(level, tos, way.dscp << 2)

    def _filter(self) -> None:
        """Let the kernel drop, before it copies them, other types and the echoes of everybody else."""
        wanted = (self.format.reply, *self.format.errors)
        if self.format is V4:
            mask = ~sum(1 << kind for kind in wanted) & 0xFFFFFFFF
            self._sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", mask))
        else:
            words = [0xFFFFFFFF] * 8
            for kind in wanted:
                words[kind >> 5] &= ~(1 << (kind & 31))
            self._sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("@8I", *words))
        lines = _bpf4(self.identity) if self.format is V4 else _bpf6(self.identity)
        program = b"".join(struct.pack("@HBBI", *line) for line in lines)
        keep = ctypes.create_string_buffer(program, len(program))
        pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(keep))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)

    def restart_stamps(self) -> None:
        """Count transmit stamps from 0 again: the next packet's stamp will carry the number 0."""
        for options in (_STAMPING, _STAMPING | _OPT_ID):
            self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, options)

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._sock.fileno()

    @property
    def overflow(self) -> int:
        """Packets the kernel dropped for want of buffer since the start, as it counts them itself."""
        drops: int = _MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
        return drops

    def close(self) -> None:
        """Close the socket."""
        self._holder.close()


_Line = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def _bpf4(identity: int) -> list[_Line]:
    """Packets begin with the IP header: replies with our id, and errors whose quoted echo has it."""
    return [
        (_LDX_MSH, 0, 0, 0),
        (_LDB_X, 0, 0, 0),
        (_JEQ, 0, 3, V4.reply),
        (_LDH_X, 0, 0, 4),
        (_JEQ, 13, 0, identity),
        (_RET, 0, 0, 0),
        (_LDB_X, 0, 0, 8 + 9),
        (_JEQ, 0, 9, socket.IPPROTO_ICMP),
        (_LDB_X, 0, 0, 8),
        (_AND, 0, 0, 15),
        (_LSH, 0, 0, 2),
        (_ADD_X, 0, 0, 0),
        (_TAX, 0, 0, 0),
        (_LDH_X, 0, 0, 8 + 4),
        (_JEQ, 0, 2, identity),
        (_LDB_X, 0, 0, 8),
        (_JEQ, 1, 0, V4.request),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, 0xFFFF),
    ]


def _bpf6(identity: int) -> list[_Line]:
    """The same where packets begin with the ICMPv6 header and the quoted IPv6 header has no extensions."""
    return [
        (_LDB, 0, 0, 0),
        (_JEQ, 0, 2, V6.reply),
        (_LDH, 0, 0, 4),
        (_JEQ, 7, 6, identity),
        (_LDB, 0, 0, 8 + 6),
        (_JEQ, 0, 4, socket.IPPROTO_ICMPV6),
        (_LDB, 0, 0, 8 + 40),
        (_JEQ, 0, 2, V6.request),
        (_LDH, 0, 0, 8 + 40 + 4),
        (_JEQ, 1, 0, identity),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, 0xFFFF),
    ]


def _open(version: int) -> tuple[bool, ICMPv4Socket | ICMPv6Socket]:
    opener = ICMPv4Socket if version == 4 else ICMPv6Socket
    for raw in (True, False):
        try:
            return raw, opener(privileged=raw)
        except SocketPermissionError:
            continue
        except ICMPSocketError as err:
            raise FamilyUnavailableError(str(err)) from None
    raise NoPermissionError(PERMISSION_HELP)


def _grow(sock: socket.socket, force: int, option: int, size: int) -> int:
    """A buffer of `size` bytes or as large as we may have it. Returns the bytes granted."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted: int = sock.getsockopt(socket.SOL_SOCKET, option)
    return granted
