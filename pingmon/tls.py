"""The server's TLS context: TLS 1.3 unless told otherwise, its chain exchanged while connections stay open.

Each handshake is handed the context of the newest good chain. (`load_cert_chain` on a live context would do for a
renewed one, but a chain with another kind of key lies beside the old one there, which is then still served.)
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

log = logging.getLogger("pingmon.tls")
WARN_DAYS = 14  # a leaf of `pingmon pki` is renewed when 30 are left
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
    return _check(certificate, _read(certificate, "certificate"), key, _read(key, "key"))


def _check(certificate: Path, chain_pem: bytes, key: Path, key_pem: bytes) -> Chain:
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


def _load(certificate: Path, key: Path, minimum: str) -> tuple[ssl.SSLContext, Chain]:
    chain_pem, key_pem = _read(certificate, "certificate"), _read(key, "key")
    chain = _check(certificate, chain_pem, key, key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[minimum]
    try:
        with _in_memory(chain_pem + b"\n" + key_pem) as file:
            context.load_cert_chain(file)
    except ssl.SSLError as error:
        raise TlsError(f"certificate {certificate} cannot be served ({error.reason}); issue a new one") from None
    return context, chain


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A file of exactly these bytes: what was checked is what is served, whoever writes the real files meanwhile."""
    descriptor = os.memfd_create("pingmon-tls")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class Served:
    """The chain in use. `context` is for the listener and stays the same for good."""

    def __init__(
        self, certificate: Path, key: Path, minimum: str = "1.3", now: Callable[[], float] = time.time
    ) -> None:
        """Raises TlsError."""
        self._files, self._minimum, self._now = (certificate, key), minimum, now
        self._seen = self._tried = self._signature()
        self._asked = False
        self._current, self.chain = _load(certificate, key, minimum)
        self.trouble: str | None = None  # why a newer chain is not served; None while the files are what is served
        self.reloads = self.failures = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = VERSIONS[minimum]
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL at each client hello, with or without a name in it."""
        connection.context = self._current

    def ask(self) -> None:
        """Load the files anew at the next look, changed or not; for a signal handler."""
        self._asked = True

    def look(self) -> None:
        """Serve what is in the files, if that changed and is good; else go on with what is served. Never raises."""
        seen, before = self._signature(), self._seen
        self._seen = seen
        # A pair is written one file after the other: not before both have been left alone from one look to the next.
        if not self._asked and (seen == self._tried or seen != before):
            return
        self._asked, self._tried = False, seen
        try:
            self._current, self.chain = _load(*self._files, self._minimum)
        except TlsError as error:
            self.failures += 1
            self.trouble = f"{error}; the certificate that was loaded before stays in use"
            log.warning("certificate not reloaded: %s", self.trouble)
            return
        self.trouble = None
        self.reloads += 1
        log.info("certificate reloaded until=%s names=%s", self._until(), ",".join(self.chain.names))

    def warning(self) -> str | None:
        """What an administrator must know of it: that it ends soon, or that its successor cannot be used."""
        if self.trouble is not None:
            return self.trouble
        days = (self.chain.not_after - self._now()) / 86_400
        if days >= WARN_DAYS:
            return None
        when = f"ends in {days:.0f} days, on" if days >= 1 else "ends within a day, on" if days > 0 else "ended on"
        return (
            f"The certificate of this server {when} {self._until()}: then no agent and no browser connects any more. "
            "Renew it (`pingmon pki issue`); it is taken over without a restart."
        )

    def _until(self) -> str:
        return f"{datetime.fromtimestamp(self.chain.not_after, UTC):%Y-%m-%d}"

    def _signature(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
