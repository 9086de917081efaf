"""The server's TLS context: TLS 1.3 unless told otherwise, its chain reloadable while connections stay open.

Source: server.md measured that `load_cert_chain` on a live context serves the new chain at the next handshake.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

VERSIONS = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}


class TlsError(Exception):
    """The certificate or key cannot be used; the text says which file and what to do."""


@dataclass(frozen=True)
class Chain:
    """What is served: `not_after` as unix seconds, the names it is good for."""

    not_after: float
    names: tuple[str, ...]


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TlsError(f"{what} {path} does not exist; make one with `pingmon pki issue` or correct the path") from None
    except OSError as error:
        raise TlsError(f"{what} {path} cannot be read ({error.strerror}); give this user read permission") from None


def check_pair(certificate: Path, key: Path) -> Chain:
    """Read both files and see that they belong together; raises TlsError with a sentence naming the file at fault."""
    chain_pem, key_pem = _read(certificate, "certificate"), _read(key, "key")
    try:
        leaf = x509.load_pem_x509_certificate(chain_pem)
    except ValueError:
        raise TlsError(f"certificate {certificate} is not a PEM certificate; convert it or issue a new one") from None
    try:
        private = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise TlsError(f"key {key} is not an unencrypted PEM private key; issue it without a password") from None
    ours = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if ours != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise TlsError(
            f"certificate {certificate} does not belong to key {key}; issue both together with `pingmon pki issue`"
        )
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise TlsError(
            f"certificate {certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d}; "
            "renew it with `pingmon pki issue`"
        )
    return Chain(not_after=leaf.not_valid_after_utc.timestamp(), names=_names(leaf))


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in san)


def server_context(certificate: Path, key: Path, minimum: str = "1.3") -> ssl.SSLContext:
    """A context that serves this chain; raises TlsError."""
    check_pair(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[minimum]
    context.load_cert_chain(certificate, key)
    return context
