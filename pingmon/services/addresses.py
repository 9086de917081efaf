"""Which addresses an agent may come from, and a passphrase be used from. Pure; must not know: agents, the database."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence

from .errors import Invalid

MAX_ENTRIES = 40
PRIVACY_BITS = 64  # an IPv6 host changes the other half by itself


def check_entries(texts: Iterable[str]) -> list[str]:
    """Addresses and networks in canonical form, each once; raises Invalid."""
    entries = list(dict.fromkeys(_entry(text.strip()) for text in texts))
    if len(entries) > MAX_ENTRIES:
        raise Invalid(f"these are {len(entries)} addresses, more than {MAX_ENTRIES}; name networks instead")
    return entries


def _entry(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise Invalid(f"{text!r} is no address or network ({error}); write 192.0.2.7 or 192.0.2.0/24") from None
    if getattr(network.network_address, "scope_id", None) is not None:
        raise Invalid(f"{text!r} carries a zone (%...); leave it out")
    return str(network) if "/" in text else str(network.network_address)


def inside(address: str, entries: Iterable[str]) -> bool:
    """Whether an address is among `entries`; single IPv6 addresses compare by /64."""
    here = ipaddress.ip_address(address)
    return any(here in _reach(entry) for entry in entries)


def _reach(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    single_v6 = ":" in entry and "/" not in entry
    return ipaddress.ip_network(f"{entry}/{PRIVACY_BITS}" if single_v6 else entry, strict=False)


def pack(entries: Sequence[str]) -> str:
    """The form in which the database keeps them."""
    return json.dumps(list(entries))


def unpack(text: str) -> tuple[str, ...]:
    """What the database kept."""
    return tuple(json.loads(text))
