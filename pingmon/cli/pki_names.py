"""Names of servers as the command line spells them (`dns:NAME`, `ip:ADDRESS`) and as certificates hold them.

Must not know: files, keys, the configuration.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import NameOID

from .plain import CommandError


def alternative_names(words: Iterable[str]) -> list[x509.GeneralName]:
    """`dns:NAME` / `ip:ADDRESS` words as X.509 names; CommandError names the word that is neither."""
    return [_alternative_name(word) for word in words]


def _alternative_name(word: str) -> x509.GeneralName:
    kind, _, value = word.partition(":")
    try:
        if kind == "ip":
            return x509.IPAddress(ipaddress.ip_address(value))
        if kind == "dns" and value and " " not in value:
            return x509.DNSName(value)
    except ValueError:
        pass  # said below, in one sentence for every kind of mistake
    raise CommandError(f"--san {word!r} is no name: write dns:monitor.example.net or ip:192.0.2.17", code=2)


def spelled(names: Iterable[x509.GeneralName]) -> list[str]:
    """X.509 names as words; a kind that servers have no use for is spelled `other:...`."""
    return [_spell(name) for name in names]


def _spell(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"dns:{name.value}"
    return f"ip:{name.value}" if isinstance(name, x509.IPAddress) else f"other:{name.value}"


def guess_kind(name: str) -> str:
    """A common name as a word: an address where it is one."""
    try:
        return f"ip:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"dns:{name}"


def common_name(name: str) -> x509.Name:
    """A subject of this one name. Raises CommandError."""
    if not 1 <= len(name) <= 64:
        raise CommandError("--name must be 1 to 64 characters long; longer names go into --san", code=2)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def names_of(extensions: x509.Extensions) -> list[x509.GeneralName]:
    """The alternative names among the extensions of a certificate or request; none where it has none."""
    try:
        return list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
