"""What a host says about itself: units, journal, exposure of a unit, and a list of all its files.

Must not know: which units or files there should be.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host import Host

# Files that change by themselves on any running host. /proc, /sys, /dev and /run are not on its disk.
RESTLESS = (
    "/tmp/*", "/var/tmp/*", "/var/log/*", "/var/cache/*", "/var/lib/apt/*", "/var/lib/systemd/*", "/var/lib/dbus/*",
    "/var/lib/private", "/etc/.pwd.lock", "/etc/machine-id", "*/__pycache__", "*/__pycache__/*", "*/.ansible",
    "*/.ansible/*", "/etc/ld.so.cache",
)  # fmt: skip


_DIGESTS: dict[tuple[str, int, int, int], str] = {}


@dataclass(frozen=True)
class Entry:
    """One file: type and mode as `ls -l` shows them, owner and group by name, and what is in it (sha256 of a file,
    target of a link, empty for the rest).
    """

    mode: str
    owner: str
    group: str
    content: str


def state(host: Host) -> str:
    """What `systemctl is-system-running` says once the boot is over; `running` is the good word."""
    return host.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()


def show(host: Host, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit by name, as `systemctl show` spells them."""
    said = host.run("systemctl", "show", unit, f"--property={','.join(properties)}").stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def exposure(host: Host, unit: str) -> float:
    """How exposed systemd finds a service, from 0.0 (not at all) to 10.0."""
    said = host.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def journal(host: Host, *, unit: str = "", priority: str = "", boots: str = "") -> list[dict[str, Any]]:
    """Entries of its journal, oldest first, as journalctl's JSON has them (MESSAGE, PRIORITY, _SYSTEMD_UNIT, ...).

    `priority` as in `err` (that and worse); `boots` as in `0` for the current one. Works while the host is down, too.
    """
    argv = ["journalctl", "--directory", str(host.inside("/var/log/journal")), "--output=json", "--quiet", "--all"]
    argv += [f"--unit={unit}"] if unit else []
    argv += [f"--priority={priority}"] if priority else []
    argv += [f"--boot={boots}"] if boots else []
    if host.up:
        host.run("journalctl", "--sync")
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def journal_text(host: Host, since: float = 0.0) -> str:
    """Its journal since that unix time, for a person; works while the host is down, too."""
    argv = ["journalctl", "--directory", str(host.inside("/var/log/journal")), "--output=short-precise", "--quiet"]
    return subprocess.run([*argv, f"--since=@{since:f}"], capture_output=True, text=True).stdout


def files(host: Host, *, skip: Iterable[str] = RESTLESS) -> dict[str, Entry]:
    """All files, folders and links of the host by absolute path, without those that match `skip` (shell patterns)."""
    users, groups = _names(host, "/etc/passwd"), _names(host, "/etc/group")
    unwanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in skip))
    return dict(_walk(host.disk.root, host.disk.root, unwanted, (users, groups)))


def difference(before: dict[str, Entry], after: dict[str, Entry]) -> list[str]:
    """What changed between two listings, a line each: `+ path`, `- path`, `! path: was, is`."""
    lines = [f"+ {path}" for path in after if path not in before]
    lines += [f"- {path}" for path in before if path not in after]
    both = [path for path in before if path in after]
    lines += [f"! {path}: {before[path]}, {after[path]}" for path in both if before[path] != after[path]]
    return sorted(lines, key=lambda line: line[2:])


def _names(host: Host, path: str) -> dict[int, str]:
    """Names by number, of a file such as /etc/passwd."""
    rows = (line.split(":") for line in host.read(path).splitlines())
    return {int(row[2]): row[0] for row in rows}


def _walk(
    top: Path, folder: Path, unwanted: re.Pattern[str], names: tuple[dict[int, str], dict[int, str]]
) -> Iterator[tuple[str, Entry]]:
    with os.scandir(folder) as entries:
        for found in sorted(entries, key=lambda entry: entry.name):
            path = Path(found.path)
            shown = f"/{path.relative_to(top)}"
            if unwanted.fullmatch(shown):
                continue
            kept = found.stat(follow_symlinks=False)
            owner, group = names[0].get(kept.st_uid, str(kept.st_uid)), names[1].get(kept.st_gid, str(kept.st_gid))
            yield shown, Entry(stat.filemode(kept.st_mode), owner, group, _content(path, kept))
            if stat.S_ISDIR(kept.st_mode):
                yield from _walk(top, path, unwanted, names)


def _content(path: Path, kept: os.stat_result) -> str:
    if stat.S_ISLNK(kept.st_mode):
        return str(path.readlink())
    if not stat.S_ISREG(kept.st_mode):
        return ""
    # Nearly all files are the image's, and the same in each listing: read once. Nothing can set a file's ctime back.
    seen = (str(path), kept.st_ino, kept.st_size, kept.st_ctime_ns)
    if seen not in _DIGESTS:
        _DIGESTS[seen] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _DIGESTS[seen]
