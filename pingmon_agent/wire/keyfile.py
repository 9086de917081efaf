"""The file in which a program keeps its identity: made once, never made anew by itself.

The key is written whole or not at all, and stands beside the fingerprint of its public half, so that a flipped bit is
noticed and not mistaken for another identity. Must not know: which of the two programs asks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .contract import WireError
from .framing import b64u, unb64u
from .seal import Identity

_WORD = "pingmon-identity-1"


class KeyFileError(Exception):
    """The identity cannot be used; the text says what to do."""


def identity_file(path: Path, loss: str) -> Identity:
    """The identity kept in `path` (0600), made at first use; `loss` says what a new one would cost.

    Raises KeyFileError.
    """
    try:
        return _read(path, loss)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror}); give this user read permission") from None
    try:
        _make(path)
        return _read(path, loss)
    except OSError as error:
        why = f"an identity cannot be kept in {path} ({error.strerror})"
        raise KeyFileError(f"{why}; make {path.parent} a directory that this user may write to") from None


def _read(path: Path, loss: str) -> Identity:
    try:
        word, seed, fingerprint = path.read_bytes().decode().split()
        identity = Identity(unb64u(seed, 32))
    except (ValueError, WireError):
        word, fingerprint, identity = "", "", None
    if identity is None or (word, fingerprint) != (_WORD, identity.fingerprint):
        raise KeyFileError(f"{path} is damaged: restore it from a backup, or remove it and {loss}")
    return identity


def _make(path: Path) -> None:
    """Written beside, synced, then given its name, unless somebody was faster."""
    seed, beside = os.urandom(32), path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{_WORD} {b64u(seed)} {Identity(seed).fingerprint}\n")
            _belong(file.fileno(), path.parent)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()
    sync_directory(path.parent)


def _belong(descriptor: int, directory: Path) -> None:
    """Made by root for a service: it belongs to whom its directory belongs."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_directory(directory: Path) -> None:
    """Names made or removed in it survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
