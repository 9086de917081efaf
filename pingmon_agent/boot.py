"""Which boot of the host this is: its clock says nothing about times and files of another one.

Must not know: the ring.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

from .log import say

_log = logging.getLogger(__name__)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")
_GONE_AT_REBOOT = ("tmpfs", "ramfs")


def boot_name(directory: Path, noted: bytes) -> bytes:
    """8 bytes. `noted` is what they were when somebody wrote that into `directory` (b"": nobody did).

    Where the kernel's own name is hidden (`ProcSubset=pid`), a file on tmpfs is of this boot, and so is what it says.
    On a disk nobody can tell, and each start counts as a reboot.
    """
    try:
        return bytes.fromhex(BOOT_ID.read_text().replace("-", "").strip())[:8]
    except OSError as err:
        if noted and _on_tmpfs(directory):
            return noted
        _log.info(say("this boot gets a name of its own", reason=f"{BOOT_ID}: {err.strerror}"))
        return secrets.token_bytes(8)


def _on_tmpfs(directory: Path) -> bool:
    """Whether the mount that holds `directory` says so; False where that cannot be found out."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return False
    kinds = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2] == wanted]
    return bool(kinds) and kinds[0] in _GONE_AT_REBOOT
