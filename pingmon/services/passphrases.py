"""Passphrases: generated, shown once, kept as an HMAC under a pepper that lies outside the database.

Form: `pm1-<id 8>-<secret 26>-<pin 32>` in Crockford base32, which never crosses the wire in clear and brings the pin of
the server along, or `pml-<id 8>-<secret 26>` for legacy agents, sent as it is inside TLS. 130 random bits need no slow
hash. Must not know: agents, sockets, Flask.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from pingmon_agent.wire.framing import ALPHABET, enc

KIND_PLAIN = "pml"
KIND_SEALED = "pm1"
_FORM = re.compile(rf"(pml|pm1)-([{ALPHABET}]{{8}})-([{ALPHABET}]{{26}})(?:-[{ALPHABET}]{{32}})?")


class PepperError(Exception):
    """The pepper file cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Parsed:
    """A passphrase taken apart."""

    kind: str
    id: str
    secret: str


def generate(kind: str) -> Parsed:
    """A fresh passphrase."""
    return Parsed(kind, _random(8), _random(26))


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def spell(parts: Parsed, pin: str) -> str:
    """The string that is copied to agents; `pin` is that of this server's identity."""
    text = f"{parts.kind}-{parts.id}-{parts.secret}"
    return text if parts.kind == KIND_PLAIN else f"{text}-{pin}"


def parse(text: str) -> Parsed | None:
    """Its parts, or None where `text` is not of our form."""
    match = _FORM.fullmatch(text)
    return Parsed(*match.groups()) if match else None


class Pepper:
    """The key of the HMAC, in a file of its own, made at first use."""

    def __init__(self, path: Path) -> None:
        self._key = secret_file(path, "make every passphrase anew")
        self.id = hashlib.sha256(b"pingmon/1/pepper-id" + self._key).hexdigest()[:16]

    def digest(self, parts: Parsed) -> bytes:
        """What the database keeps."""
        return hmac.digest(self._key, enc("pw", parts.id, parts.secret), "sha256")

    def matches(self, parts: Parsed, digest: bytes) -> bool:
        """Whether this is the secret whose digest was kept; takes the same time either way."""
        return hmac.compare_digest(self.digest(parts), digest)


def secret_file(path: Path, loss: str) -> bytes:
    """32 secret bytes kept in a file (0600), made at first use; `loss` says what a new one would cost.

    Raises PepperError, OSError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != 32:
            raise PepperError(f"{path} is damaged: restore it from a backup, or remove it and {loss}") from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
        os.fsync(file.fileno())
    return key
