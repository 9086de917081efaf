"""What of a lock belongs on which platform: names of platforms, their tags, and environment markers asked about them.

Reads lock files, nothing else. Must not know: pip, archives, the project's own wheel.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wheelhouse_base import Refusal

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename
except ImportError:
    sys.exit("this Python has no `packaging`: use the one that runs Ansible, as ansible_playbook_python names it.")

# glibc 2.28 is that of EL 8 and the newest that a locked wheel asks for (Debian 11: 2.31). musl is left out.
GLIBC = 28
OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}  # that the wheels of a processor can name
OLD_NAMES = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
# Nobody knows the patch release of a host's Python, so markers are asked about the first and about a late one.
PATCHES = (0, 99)


@dataclass(frozen=True)
class Platform:
    """What an archive is for: `agent` or `server`, a tag like `cp311`, and a processor as `uname -m` names it."""

    role: str
    tag: str
    arch: str

    def __str__(self) -> str:
        return f"{self.role} for {self.tag} on {self.arch}"

    @property
    def python(self) -> str:
        """As in `3.11`."""
        return f"3.{self.tag[3:]}"

    def manylinux(self) -> list[str]:
        """The platform tags that every host with glibc 2.28 takes, the newest first: pip prefers in this order."""
        oldest = OLDEST_GLIBC[self.arch]
        names = [f"manylinux_2_{minor}" for minor in range(GLIBC, oldest - 1, -1)]
        names += [name for name, minor in OLD_NAMES.items() if minor >= oldest]
        return [f"{name}_{self.arch}" for name in names]

    def environment(self, patch: int) -> dict[str, str]:
        """What a marker finds on a host whose Python has that patch release."""
        return {
            "implementation_name": "cpython", "implementation_version": f"{self.python}.{patch}", "os_name": "posix",
            "platform_machine": self.arch, "platform_python_implementation": "CPython", "platform_system": "Linux",
            "python_full_version": f"{self.python}.{patch}", "python_version": self.python, "sys_platform": "linux",
            "platform_release": "", "platform_version": "", "extra": "",
        }  # fmt: skip


@dataclass(frozen=True)
class Pin:
    """One package of a lock: name as PEP 503 spells it, exact version, hashes of its files (`sha256:...`)."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={value}" for value in self.hashes)])


def platform_of(text: str) -> Platform:
    """From `ROLE:PYTAG:ARCH`."""
    match = re.fullmatch(r"(agent|server):(cp3(?:1[1-9]|[2-9]\d)):(x86_64|aarch64)", text)
    if not match:
        raise Refusal(
            f"{text!r} is no platform: write ROLE:PYTAG:ARCH with agent or server, cp311 or newer, x86_64 or aarch64, "
            "as in agent:cp311:x86_64."
        )
    return Platform(*match.groups())


def pins_of(lock: Path, platform: Platform) -> list[Pin]:
    """What of that lock belongs on that platform. pip would ask the markers about the Python that runs it."""
    pins: dict[str, Pin] = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        words, *hashes = line.split("--hash=")
        if not words.strip() or words.startswith("#"):
            continue
        wanted = Requirement(words)
        if wanted.marker and not any(wanted.marker.evaluate(platform.environment(patch)) for patch in PATCHES):
            continue
        pin = Pin(canonicalize_name(wanted.name), str(wanted.specifier)[2:], tuple(value.strip() for value in hashes))
        if pin.name in pins:
            raise Refusal(f"{lock} has {pin.name} twice for {platform.tag}: make its markers exclude each other.")
        pins[pin.name] = pin
    return list(pins.values())


def hashes_in(locks: Iterable[Path]) -> set[str]:
    """Every sha256 that a lock names, in hex."""
    return {value for lock in locks for value in re.findall(r"--hash=sha256:(\w+)", lock.read_text())}


def name_and_version(wheel: str) -> tuple[str, str]:
    """Of the file name of a wheel, spelled as in a Pin."""
    name, version, *_ = parse_wheel_filename(wheel)
    return name, str(version)
