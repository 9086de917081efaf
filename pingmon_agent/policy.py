"""What this host refuses to ping, whatever a server says: a file that only the host's owner writes.

Always refused: multicast, the unspecified and the broadcast address, for these are not one host. The policy file can
refuse more, or allow nothing but certain networks. Must not know: names, sockets, the server.
"""

from __future__ import annotations

import functools
import ipaddress
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_KEYS = ("allow", "deny")


class PolicyError(Exception):
    """The policy file cannot be used; the text says what to change."""


@dataclass(frozen=True)
class Policy:
    """`allow` empty means everything; `deny` wins over `allow`."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def refuses(self, address: str) -> str | None:
        """Why `address` is not pinged from here (an error code), or None."""
        return _judge(self, address)


@functools.lru_cache(maxsize=65_536)  # asked for every address of a set whenever one of them changes
def _judge(policy: Policy, text: str) -> str | None:
    ip = ipaddress.ip_address(text.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_multicast:
        return "E_POLICY_MULTICAST"
    if ip.is_unspecified or ip == _LIMITED_BROADCAST:
        return "E_POLICY_NOT_A_HOST"
    if any(ip in network for network in policy.deny):
        return "E_POLICY_DENIED"
    if policy.allow and not any(ip in network for network in policy.allow):
        return "E_POLICY_NOT_ALLOWED"
    return None


def policy_of(file: str) -> Policy:
    """The policy in a TOML file with `allow` and `deny`, lists of networks; the standard one for "".

    Raises PolicyError: a policy that cannot be read is never taken for "everything goes".
    """
    if not file:
        return Policy()
    path = Path(file)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}); correct probe.policy_file or its rights"
        raise PolicyError(why) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not valid TOML: {error}") from None
    for key in table:
        if key not in _KEYS:
            raise PolicyError(f"{path}: {key} is not a rule; there are {', '.join(_KEYS)}")
    return Policy(allow=_networks(path, "allow", table), deny=_networks(path, "deny", table))


def _networks(path: Path, key: str, table: dict[str, object]) -> tuple[Network, ...]:
    words = table.get(key, [])
    if not isinstance(words, Sequence) or isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise PolicyError(f'{path}: {key} must be a list of networks, such as ["192.0.2.0/24"]')
    try:
        return tuple(ipaddress.ip_network(word) for word in words)
    except ValueError as error:
        raise PolicyError(f'{path}: {key}: {error}; write networks such as "192.0.2.0/24"') from None
