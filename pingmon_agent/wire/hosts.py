"""Which addresses are the address of one host, and why a target is refused: both programs judge by this file.

An IPv6 address that carries an IPv4 address is judged as that one, for this is where its packets end up.
Must not know: names, sockets, what either program allows beyond this.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from enum import StrEnum

from .contract import ErrorCode, WireError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_REFUSED = 500  # refusals in one acknowledgement: 20 KiB of a message of 64
MAX_REFUSED_LATER = 20  # refusals in a report, which may be full of samples

_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_CODE = re.compile(r"E_POLICY_[A-Z_]{1,30}")


class PolicyCode(StrEnum):
    """Why a target is not pinged."""

    MULTICAST = "E_POLICY_MULTICAST"
    NOT_A_HOST = "E_POLICY_NOT_A_HOST"
    LINK_LOCAL = "E_POLICY_LINK_LOCAL"
    LOOPBACK = "E_POLICY_LOOPBACK"
    BROADCAST = "E_POLICY_BROADCAST"
    DENIED = "E_POLICY_DENIED"
    NOT_ALLOWED = "E_POLICY_NOT_ALLOWED"
    TARGETS = "E_POLICY_TARGETS"
    RATE = "E_POLICY_RATE"
    INTERVAL = "E_POLICY_INTERVAL"
    SIZE = "E_POLICY_SIZE"


WORDS = {
    PolicyCode.MULTICAST: "it is a multicast address, not one host",
    PolicyCode.NOT_A_HOST: "it is the address of no single host",
    PolicyCode.LINK_LOCAL: "it is a link-local address, which means another host everywhere",
    PolicyCode.LOOPBACK: "it is a loopback address, and probe.allow_loopback is off in agent.toml",
    PolicyCode.BROADCAST: "it is the broadcast address of a network of the agent's host",
    PolicyCode.DENIED: "it lies in a network under `deny` of the agent's policy file",
    PolicyCode.NOT_ALLOWED: "it lies outside the networks under `allow` of the agent's policy file",
    PolicyCode.TARGETS: "there are more targets than `max_targets` of the agent's policy file",
    PolicyCode.RATE: "all targets together are more than `max_packets_per_s` of the agent's policy file",
    PolicyCode.INTERVAL: "it would be probed more often than `min_interval_s` of the agent's policy file",
    PolicyCode.SIZE: "its probes are larger than `max_size` of the agent's policy file",
}


def in_words(code: str) -> str:
    """A refusal for people; a code of a newer agent stands for itself."""
    return WORDS[PolicyCode(code)] if code in set(PolicyCode) else f"the agent's host says {code}"


def encode_refused(refused: tuple[tuple[int, str], ...] | None) -> dict[str, list[list[int | str]]]:
    """The field of a report; nothing where nothing changed."""
    return {} if refused is None else {"refused": [list(pair) for pair in refused]}


def decode_refused(value: object, most: int) -> tuple[tuple[int, str], ...]:
    """[[target id, code], ...] as an agent sends it, `most` pairs of them; raises WireError."""
    if isinstance(value, list) and len(value) <= most and all(_is_refusal(pair) for pair in value):
        return tuple((target_id, code) for target_id, code in value)
    raise WireError(ErrorCode.MALFORMED, f"refused must hold {most} pairs of target id and E_POLICY_ code at most")


def _is_refusal(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int or not isinstance(pair[1], str):
        return False
    return pair[0] >= 0 and _CODE.fullmatch(pair[1]) is not None


@functools.lru_cache(maxsize=65_536)  # asked for every address of a list whenever one of them changes
def parse(text: str) -> Address:
    """The address that packets to `text` end up at, a zone left out. Raises ValueError where it is none."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address


@functools.lru_cache(maxsize=65_536)
def why_no_target(text: str, allow_loopback: bool) -> PolicyCode | None:
    """Why an address is never pinged, wherever from; None if it may be. Raises ValueError where it is none."""
    address = parse(text)
    if address.is_multicast:
        return PolicyCode.MULTICAST
    if address.is_unspecified or address == _LIMITED_BROADCAST or _is_this_network(address):
        return PolicyCode.NOT_A_HOST
    if address.is_link_local:
        return PolicyCode.LINK_LOCAL
    if address.is_loopback and not allow_loopback:
        return PolicyCode.LOOPBACK
    return None


def _is_this_network(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv4Address) and address in _THIS_NETWORK
