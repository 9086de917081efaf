"""What `pingmon pki show` tells about a certificate, for people and for plays that decide whether to renew it.

Must not know: how certificates are made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from .pem_files import load_certificates, read
from .pki_authority import issued_by
from .pki_names import names_of, spelled
from .plain import CommandError, shown

DAY_S = 86_400
ROWS = (
    ("subject", "subject"),
    ("names", "names"),
    ("issuer", "issuer"),
    ("not_before", "valid from"),
    ("not_after", "valid until"),
    ("days_left", "whole days left"),
    ("issued_by_ca", "issued by that authority"),
    ("key_matches", "the key belongs to it"),
    ("sha256", "SHA-256"),
)


def facts(file: Path, anchors: Path | None, key: Path | None, now: datetime | None = None) -> dict[str, Any]:
    """The first certificate in `file`; times are unix seconds, `days_left` is below 0 once it has ended.

    `issued_by_ca` is whether one in `anchors` signed it, `key_matches` whether `key` is its own; None where not asked.
    Raises CommandError.
    """
    chain = load_certificates(file)
    leaf, now = chain[0], now or datetime.now(UTC)
    return {
        "file": str(file),
        "subject": leaf.subject.rfc4514_string(),
        "names": spelled(names_of(leaf.extensions)),
        "issuer": leaf.issuer.rfc4514_string(),
        "not_before": int(leaf.not_valid_before_utc.timestamp()),
        "not_after": int(leaf.not_valid_after_utc.timestamp()),
        "days_left": int((leaf.not_valid_after_utc - now).total_seconds() // DAY_S),
        "certificates": len(chain),
        "issued_by_ca": any(issued_by(leaf, one) for one in load_certificates(anchors)) if anchors else None,
        "key_matches": _public(key) == _spki(leaf) if key else None,
        "sha256": leaf.fingerprint(hashes.SHA256()).hex(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people; what was not asked for is left out."""
    width = max(len(label) for _, label in ROWS)
    return [f"{label.ljust(width)}  {_told(key, found[key])}" for key, label in ROWS if found[key] is not None]


def _told(key: str, value: Any) -> str:
    if key.startswith("not_"):
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shown(", ".join(value) if isinstance(value, list) else str(value))


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public(key: Path) -> bytes:
    try:
        private = load_pem_private_key(read(key), password=None)
    except (ValueError, TypeError):
        raise CommandError(f"{key} is no PEM private key without password: restore it from a backup") from None
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
