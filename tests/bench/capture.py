"""The kernel's own time stamps of echo requests and replies on an interface: the truth that reported times are held to.

Stamps are taken when the packet passes the packet tap, outgoing just before the driver, incoming where the driver hands
it over; reading them late does not change them. Must not know: which program sent what.
"""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from dataclasses import dataclass

from .world import NEAR, World

_ETH_P_ALL, _OUTGOING = 3, 4
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_ROOM = 64 << 20
_REQUEST, _REPLY = 8, 0


@dataclass(frozen=True)
class Trip:
    """One echo as the kernel saw it: sent at (unix ns), back after (ns)."""

    sent_ns: int
    rtt_ns: int


class Capture:
    """Collects from its making on; `trips` reads what has passed since the last call."""

    def __init__(self, world: World) -> None:
        self._socket = world.near.run(_open)

    def trips(self) -> dict[str, list[Trip]]:
        """Answered echoes by address asked, in the order of sending; the first reply counts."""
        sent: dict[tuple[str, bytes], int] = {}
        found: defaultdict[str, list[Trip]] = defaultdict(list)
        while True:
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(128, 128)
            except BlockingIOError:
                break
            if packet[9] != 1 or len(packet) < 28:
                continue
            stamp = _stamp_ns(ancillary)
            kind, identity = packet[20], packet[24:28]
            if kind == _REQUEST and sender[2] == _OUTGOING:
                sent[socket.inet_ntoa(packet[16:20]), identity] = stamp
            elif kind == _REPLY and sender[2] != _OUTGOING:
                address = socket.inet_ntoa(packet[12:16])
                begun = sent.pop((address, identity), None)
                if begun is not None:
                    found[address].append(Trip(begun, stamp - begun))
        for trips in found.values():
            trips.sort(key=lambda trip: trip.sent_ns)
        return found

    def close(self) -> None:
        """Stop collecting."""
        self._socket.close()


def _open() -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # nothing arrives before it is bound
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    tap.bind((NEAR, _ETH_P_ALL))
    tap.setblocking(False)
    return tap


def _stamp_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, ns = struct.unpack("ll", data[: struct.calcsize("ll")])
            return int(seconds * 1_000_000_000 + ns)
    raise RuntimeError("the kernel gave no time stamp for a captured packet; this bench needs Linux 3.17 or newer")
