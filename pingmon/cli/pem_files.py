"""Certificates and keys as PEM files. Private keys are created 0600; what is replaced is replaced in one step.

Must not know: what is in them, the configuration, the store.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .plain import CommandError

KEY_MODE, CERTIFICATE_MODE = 0o600, 0o644
# What a file may keep of the mode of the one that it replaces: a key stays closed to everybody else.
KEY_LIMIT, CERTIFICATE_LIMIT = 0o640, 0o644
STANDARD = Path("-")


def read(path: Path) -> bytes:
    """A file, or standard input for `-`. Raises CommandError."""
    if path == STANDARD:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{path} does not exist: see that the path is right") from None
    except OSError as error:
        raise CommandError(f"cannot read {path} ({error.strerror}): run this as the user who owns it") from None


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file. Raises CommandError."""
    return load_certificates(path)[0]


def load_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates in a file, at least one. Raises CommandError."""
    try:
        return x509.load_pem_x509_certificates(read(path))
    except ValueError:
        raise CommandError(f"{path} is no PEM certificate: restore it, or remove it and issue a new one") from None


def der_of(certificate: x509.Certificate) -> bytes:
    """Its bytes as TLS sends them."""
    return certificate.public_bytes(serialization.Encoding.DER)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The EC key in a file. Raises CommandError."""
    try:
        key = serialization.load_pem_private_key(read(path), password=None)
    except (ValueError, TypeError):
        raise CommandError(f"{path} is no PEM private key without password: restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CommandError(f"{path} is no EC key: this small authority works with EC P-256 keys only")
    return key


def make_directory(path: Path) -> None:
    """Make a directory of one's own, and those above it. Raises CommandError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make {path} ({error.strerror}): choose a directory you may write to") from None


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, *, replace: bool = False, like: Path | None = None) -> None:
    """Write a private key, see `write_new`."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_new(path, pem, KEY_MODE, replace=replace, like=like, limit=KEY_LIMIT)


def write_certificate(path: Path, *chain: x509.Certificate, replace: bool = False, like: Path | None = None) -> None:
    """Write a certificate and those above it, see `write_new`; `-` is standard output."""
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    if path == STANDARD:
        sys.stdout.write(pem.decode("ascii"))
        return
    write_new(path, pem, CERTIFICATE_MODE, replace=replace, like=like)


def write_new(
    path: Path,
    content: bytes,
    mode: int,
    *,
    replace: bool = False,
    like: Path | None = None,
    limit: int = CERTIFICATE_LIMIT,
) -> None:
    """Write a file that did not exist before; with `replace`, under another name first and then in one step over it.

    It gets the owner and, within `limit`, the mode of the file it replaces, or of `like`, where there is one. Raises
    CommandError.
    """
    target = path.with_name(f".{path.name}.{os.getpid()}") if replace else path
    model = like or path
    try:
        before = model.stat() if replace and model.exists() else None
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                _resemble(descriptor, before, limit)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            target.replace(path)
    except OSError as error:
        if replace:
            target.unlink(missing_ok=True)
        raise CommandError(f"cannot write {path} ({error.strerror}): choose a place you may write to") from None


def _resemble(descriptor: int, before: os.stat_result, limit: int) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, before.st_mode & limit)
