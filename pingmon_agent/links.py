"""The broadcast addresses of the networks this host is in, asked of the kernel (rtnetlink).

The kernel refuses to send there anyway, as no socket of the agent sets SO_BROADCAST; this is how the refusal gets its
name before the first probe. Must not know: targets, policies.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Iterator

from .log import say

_log = logging.getLogger(__name__)
_GET_ADDRESSES, _NEW_ADDRESS, _DONE, _ERROR = 22, 20, 3, 2
_REQUEST_DUMP = 0x301
_LOCAL, _BROADCAST = 2, 4  # IFA_LOCAL, IFA_BROADCAST
_HEAD, _FACTS, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")
_WAIT_S = 1.0


def broadcasts() -> frozenset[str]:
    """The broadcast address of each IPv4 network of this host; empty where the kernel does not tell."""
    try:
        return frozenset(address for facts in _addresses() for address in _broadcasts_of(*facts))
    except (OSError, struct.error) as error:
        _log.warning(say("this host's networks cannot be read, its kernel alone refuses broadcasts", reason=str(error)))
        return frozenset()


def _addresses() -> Iterator[tuple[int, dict[int, bytes]]]:
    """(prefix length, attributes by type) of each IPv4 address of this host."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_WAIT_S)
        request = _FACTS.pack(socket.AF_INET, 0, 0, 0, 0)
        kernel.send(_HEAD.pack(_HEAD.size + len(request), _GET_ADDRESSES, _REQUEST_DUMP, 1, 0) + request)
        while True:
            data = kernel.recv(65_536)
            while data:
                length, kind, *_ = _HEAD.unpack_from(data)
                if kind in (_DONE, _ERROR):
                    return
                if kind == _NEW_ADDRESS:
                    yield _FACTS.unpack_from(data, _HEAD.size)[1], _attributes(data[_HEAD.size + _FACTS.size : length])
                data = data[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[max(_ATTRIBUTE.size, _aligned(length)) :]
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _broadcasts_of(prefix: int, attributes: dict[int, bytes]) -> Iterator[str]:
    if _BROADCAST in attributes:
        yield str(ipaddress.IPv4Address(attributes[_BROADCAST]))
    if _LOCAL in attributes and prefix < 31:
        network = ipaddress.IPv4Network((attributes[_LOCAL], prefix), strict=False)
        yield str(network.broadcast_address)
