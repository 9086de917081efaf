"""The addresses of a plan, sorted into families and turned into what the kernel wants: once per change of the list.

Must not know: names, sockets, rounds.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Collection, Sequence

from .plan import STANDARD, Way
from .wire.contract import Outcome

Key = tuple[int, Way]  # IP version, and how its probes leave


class Addresses:
    """`names[k][n]` is the socket address of the n-th probe of lane k, `places[k][n]` its place in the plan.

    `blank` has, per probe, what it is without being sent: unresolved, or not sent for want of its family.
    """

    def __init__(
        self, addresses: Sequence[str | None], versions: Collection[int], ways: Sequence[Way] | None = None
    ) -> None:
        self.addresses, self.ways = addresses, ways
        self.blank = array("i", [Outcome.NOT_SENT]) * len(addresses)
        self.names: dict[Key, list[bytes]] = {(version, STANDARD): [] for version in versions}
        self.places: dict[Key, list[int]] = {(version, STANDARD): [] for version in versions}
        self.unusable = 0
        for index, address in enumerate(addresses):
            if address is None:
                self.blank[index] = Outcome.UNRESOLVED
                continue
            version, name = _socket_address(address)
            way = STANDARD if ways is None else ways[index]
            if version in versions and (not way.source or (6 if ":" in way.source else 4) == version):
                self.names.setdefault((version, way), []).append(name)
                self.places.setdefault((version, way), []).append(index)
            else:
                self.unusable += 1


def _socket_address(address: str) -> tuple[int, bytes]:
    """(IP version, struct sockaddr); version 0, which no lane has, for an address this host cannot use."""
    scope = 0
    if "%" in address:
        try:
            found = socket.getaddrinfo(address, None, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        except OSError:
            return 0, b""  # a zone that names no interface here, say
        address, scope = address.partition("%")[0], int(found[4][-1])
    try:
        if ":" in address:
            return 6, struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, address), scope)
        return 4, struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_pton(socket.AF_INET, address))
    except OSError:
        return 0, b""
