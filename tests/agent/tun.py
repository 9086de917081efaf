"""A responder of our own on a TUN device: every host of 10.99.0.0/16 and 2001:db8:99::/64, answering by a script.

The kernel has no netem, and no kernel answers wrongly on purpose. A script gets each packet that arrives and returns
what to send back and after how long; whoever may not be asked gets no answer at all.
"""

from __future__ import annotations

import fcntl
import heapq
import ipaddress
import itertools
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .namespaces import Namespace

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
HOST, ROUTER = "10.99.0.1", "10.98.7.6"
HOST6, ROUTER6 = "2001:db8:99::1", "2001:db8:98::6"


@dataclass(frozen=True)
class Packet:
    """One IP packet that the responder got. `number` counts the echo requests from 0."""

    ip: bytes
    number: int

    @property
    def v6(self) -> bool:
        return self.ip[0] >> 4 == 6

    @property
    def head(self) -> int:
        return 40 if self.v6 else (self.ip[0] & 15) * 4

    @property
    def icmp(self) -> bytes:
        return self.ip[self.head :]

    @property
    def source(self) -> str:
        return str(ipaddress.ip_address(self.ip[8:24] if self.v6 else self.ip[12:16]))

    @property
    def destination(self) -> str:
        return str(ipaddress.ip_address(self.ip[24:40] if self.v6 else self.ip[16:20]))

    def answer(self, icmp: bytes, sender: str | None = None, *, options: bytes = b"") -> bytes:
        """An IP packet back to the sender with this ICMP message (its checksum is filled in)."""
        return ip_packet(sender or self.destination, self.source, icmp, options=options)

    def reply(self, *, sender: str | None = None, change: Callable[[bytearray], None] | None = None) -> bytes:
        """An echo reply, perhaps changed from byte 8 on."""
        icmp = bytearray(self.icmp)
        icmp[0] = 129 if self.v6 else 0
        if change is not None:
            change(icmp)
        return self.answer(bytes(icmp), sender)

    def error(self, kind: int, code: int, *, quoted: int = 1000, sender: str | None = None) -> bytes:
        """An ICMP error by a router that quotes `quoted` bytes after the IP header."""
        quote = self.ip[: self.head + quoted]
        return self.answer(bytes([kind, code, 0, 0, 0, 0, 0, 0]) + quote, sender or (ROUTER6 if self.v6 else ROUTER))


Answer = tuple[float, bytes]
Script = Callable[[Packet], Iterable[Answer]]


def ip_packet(source: str, destination: str, icmp: bytes, *, options: bytes = b"") -> bytes:
    """An IPv4 or IPv6 packet with right checksums."""
    here, there = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(here) == 16:
        pseudo = here + there + struct.pack("!II", len(icmp), 58)
        body = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp[:2] + b"\0\0" + icmp[4:])) + icmp[4:]
        return struct.pack("!IHBB", 0x60000000, len(icmp), 58, 64) + here + there + body
    body = icmp[:2] + struct.pack("!H", checksum(icmp[:2] + b"\0\0" + icmp[4:])) + icmp[4:]
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(icmp), 0, 0, 64, 1, 0) + here + there + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def checksum(data: bytes) -> int:
    """The ones' complement checksum of the Internet protocols."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Responder:
    """Lives in a namespace of its caller; close it before the namespace."""

    def __init__(self, space: Namespace, script: Script) -> None:
        self.script, self.seen = script, 0
        self._fd = space.run(_open_tun)
        space.ip("addr", "add", "10.99.255.254/16", "dev", "tun0")
        space.ip("-6", "addr", "add", "2001:db8:99::ffff/64", "dev", "tun0", "nodad")
        space.ip("link", "set", "tun0", "up", "mtu", "1500")
        space.ip("route", "add", "10.98.0.0/16", "dev", "tun0")
        space.ip("-6", "route", "add", "2001:db8:98::/48", "dev", "tun0")
        self._waiting: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._ends, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        while True:
            wait = max(0.0, self._waiting[0][0] - time.monotonic()) * 1000 if self._waiting else None
            ready = dict(poll.poll(wait))
            if self._ends in ready:
                return
            if self._fd in ready:
                self._take(os.read(self._fd, 2048))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                os.write(self._fd, heapq.heappop(self._waiting)[2])

    def _take(self, data: bytes) -> None:
        packet = Packet(data, self.seen)
        if not packet.icmp or packet.icmp[0] not in (8, 128):
            return
        self.seen += 1
        for delay, answer in self.script(packet):
            if delay <= 0:
                os.write(self._fd, answer)
            else:
                heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._order), answer))

    def close(self) -> None:
        """Take the device away."""
        os.write(self._end, b"x")
        self._thread.join()
        for handle in (self._fd, self._ends, self._end):
            os.close(handle)


def _open_tun() -> int:
    handle = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    return handle
