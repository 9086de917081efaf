"""What makes an image a particular host: its name, its neighbours' names, its ssh key and who may come in.

Must not know: how it is started.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def furnish(root: Path, name: str, addresses: Mapping[str, str], public_key: str) -> None:
    """Write into the tree of a host that is down. `addresses`: of all machines, by name."""
    (root / "etc/hostname").write_text(f"{name}\n")
    known = "".join(f"{address} {neighbour}\n" for neighbour, address in addresses.items())
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{known}")
    (root / "etc/resolv.conf").write_text("")  # there is nobody to ask
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")  # sshd complains where there is none
    for home in (root / "root", root / "home/deploy"):
        _let_in(home, public_key)
    key = root / "etc/ssh/ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)


def _let_in(home: Path, public_key: str) -> None:
    owner = home.stat()
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    keys = folder / "authorized_keys"
    keys.write_text(public_key)
    keys.chmod(0o600)
    for path in (folder, keys):
        os.chown(path, owner.st_uid, owner.st_gid)
