"""One server per data directory, and no restore beside it: a lock of the operating system, gone with its process.

Must not know: what lies in the directory.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "server.lock"
# While a restore replaces files one by one, half of the directory is old and half is new.
UNFINISHED = "restore-unfinished"


class LockError(Exception):
    """The data directory is in use or not whole; the text says what to do."""


@contextmanager
def held(data_dir: Path, mend: bool = False) -> Iterator[None]:
    """The directory is ours as long as this lasts; `mend`: also after a restore was cut off. Raises LockError."""
    descriptor = os.open(data_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockError(f"a pingmon server or restore is at work in {data_dir}; stop it first") from None
        if not mend and (data_dir / UNFINISHED).exists():
            raise LockError(f"a restore into {data_dir} was cut off; run `pingmon restore FILE` again")
        yield
    finally:
        os.close(descriptor)
