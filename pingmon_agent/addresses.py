"""The addresses of a plan, sorted into families and turned into what the kernel wants: once per change of the list.

Must not know: names, sockets, rounds.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence

from .wire.contract import Outcome


class Addresses:
    """`names[v][n]` is the socket address of the n-th target of IP version v, `places[v][n]` its place in the plan.

    `blank` has, per target, what it is without being probed: unresolved, or not sent for want of its family.
    """

    def __init__(self, addresses: Sequence[str | None], versions: Sequence[int]) -> None:
        self.addresses = addresses
        self.blank = array("i", [Outcome.NOT_SENT]) * len(addresses)
        self.names: dict[int, list[bytes]] = {version: [] for version in versions}
        self.places: dict[int, list[int]] = {version: [] for version in versions}
        self.unusable = 0
        for index, address in enumerate(addresses):
            if address is None:
                self.blank[index] = Outcome.UNRESOLVED
                continue
            version, name = _socket_address(address)
            if version in self.names:
                self.names[version].append(name)
                self.places[version].append(index)
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
