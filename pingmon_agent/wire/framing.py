"""How the parts of the sealed exchange are spelled as bytes and text: one way only, so that nothing reads two ways.

Must not know: keys, what the parts mean.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from .contract import ErrorCode, WireError

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32, in lower case
PIN = re.compile(rf"[{ALPHABET}]{{32}}")
PASSPHRASE = re.compile(rf"pm1-([{ALPHABET}]{{8}})-([{ALPHABET}]{{26}})-([{ALPHABET}]{{32}})")  # id, secret, pin


def enc(*parts: bytes | str | int) -> bytes:
    """Each part behind its length as 4 bytes, so that no two lists of parts read alike; integers in decimal."""
    raw = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)


def b64u(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: object, length: int | None = None) -> bytes:
    """The bytes behind canonical base64url, `length` of them if given; raises WireError."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if not data or b64u(data) != text or length not in (None, len(data)):
        raise WireError(ErrorCode.MALFORMED, "a part of the handshake is not canonical base64url of the right length")
    return data


def cj(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII; numbers as they are spelled in the message."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
