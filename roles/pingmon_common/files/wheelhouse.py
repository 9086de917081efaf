#!/usr/bin/env python3
"""Builds the archives that hosts install pingmon from, without a network: one for each role, Python and processor.

    wheelhouse.py --root REPO --out DIR --platform ROLE:PYTAG:ARCH [--platform ...] [--wheel FILE]

`pingmon-ROLE-VERSION-PYTAG-ARCH.tar.gz` holds `wheels/*.whl`, `requirements.txt` with their sha256, `pip.whl` and
`manifest.json`; its own sha256 lies beside it. The same locks, wheel and program give the same bytes on any machine.
What is there and current is left alone. Progress is on stderr, the last line of stdout is
`{"changed": bool, "archives": [{"path", "role", "python", "arch", "version", "sha256", "bytes", "changed"}]}`.
Exit code 1: one sentence on stderr. Needs `packaging`, as ansible-core does. Must not know: hosts, how they install.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import struct
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wheelhouse_base import Refusal, digest_of, say, sha256
from wheelhouse_lock import GLIBC, Platform, name_and_version, pins_of, platform_of
from wheelhouse_pip import SOURCES, Builder
from wheelhouse_project import project_wheel

BLOCK = 65535  # the largest that deflate can store


@dataclass(frozen=True)
class House:
    """The folder of the locks, that of the archives, the wheel of pingmon, and who brings the others."""

    locks: Path
    out: Path
    wheel: Path
    builder: Builder

    def archive(self, platform: Platform) -> dict[str, Any]:
        """Its entry in the answer; built unless it is there and current."""
        version = name_and_version(self.wheel.name)[1]
        path = self.out / f"pingmon-{platform.role}-{version}-{platform.tag}-{platform.arch}.tar.gz"
        before = whole(path)
        note, key = self.out / ".cache" / f"{path.name}.key", self._key(platform)
        if not note.exists() or note.read_text() != f"{key} {before}":
            say(f"packing {platform}")
            write(path, gzip_stored(tar(self._members(platform, version))))
            note.write_text(f"{key} {whole(path)}")
        return {
            "path": str(path), "role": platform.role, "python": platform.tag, "arch": platform.arch, "version": version,
            "sha256": whole(path), "bytes": path.stat().st_size, "changed": whole(path) != before,
        }  # fmt: skip

    def _key(self, platform: Platform) -> str:
        """All that decides about the bytes of an archive; not in them: a changed comment here is no new release."""
        locks = [self.locks / f"{name}.txt" for name in (platform.role, "wheelhouse", "build")]
        programs = sorted(Path(__file__).parent.glob("wheelhouse*.py"))
        return digest_of([*locks, *programs, self.wheel], str(platform))

    def _members(self, platform: Platform, version: str) -> dict[str, bytes]:
        """Name in the archive -> content."""
        self.builder.prepare()
        pins = [pin for lock in (platform.role, "wheelhouse") for pin in pins_of(self.locks / f"{lock}.txt", platform)]
        with tempfile.TemporaryDirectory(dir=self.out / ".cache") as place:
            self.builder.wheels(platform, pins, Path(place))
            files = {file.name: file.read_bytes() for file in Path(place).iterdir()}
        if len(files) != len(pins):
            raise Refusal(
                f"pip brought {len(files)} files for {len(pins)} packages: delete {self.out}/.cache and run it again."
            )
        files[self.wheel.name] = self.wheel.read_bytes()
        pip = files.pop(next(name for name in files if name.startswith("pip-")))
        return contents(platform, version, files) | {"pip.whl": pip}


def contents(platform: Platform, version: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """All of an archive but pip: wheels, what to install, what is in here. `files`: name of a wheel -> its bytes."""
    packages: dict[str, dict[str, str]] = {}
    for name, data in files.items():
        package, release = name_and_version(name)
        packages[package] = {"version": release, "file": name, "sha256": sha256(data)}
    # With the extra, pip looks itself whether all that pingmon asks for in this role is here.
    spelled = {"pingmon": f"pingmon[{platform.role}]"}
    lines = [
        f"{spelled.get(package, package)}=={of['version']} --hash=sha256:{of['sha256']}\n"
        for package, of in sorted(packages.items())
    ]
    manifest = {
        "role": platform.role, "version": version, "python": platform.tag, "arch": platform.arch, "glibc": f"2.{GLIBC}",
        "packages": packages, "built_by_us": sorted(SOURCES & packages.keys()),
    }  # fmt: skip
    members = {f"wheels/{name}": data for name, data in files.items()}
    members["requirements.txt"] = "".join(lines).encode()
    members["manifest.json"] = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    return members


def tar(members: Mapping[str, bytes]) -> bytes:
    """In the order of the names, owned by root, from the beginning of time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(members[name]), 0o644, 0
            archive.addfile(entry, io.BytesIO(members[name]))
    return packed.getvalue()


def gzip_stored(data: bytes) -> bytes:
    """A gzip file that compresses nothing: wheels are compressed already, and no two zlibs give the same bytes."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)] or [b""]
    stored = [struct.pack("<?HH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks]
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return b"".join([head, *stored, struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)])


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def write(path: Path, data: bytes) -> None:
    """The archive and, once it is whole, its sidecar."""
    for file, content in ((path, data), (sidecar(path), f"{sha256(data)}\n".encode())):
        fresh = file.with_name(file.name + ".new")
        fresh.write_bytes(content)
        fresh.replace(file)


def whole(path: Path) -> str | None:
    """The sha256 of an archive that is as it was written; None where it is not, or is not there."""
    if not path.exists() or not sidecar(path).exists():
        return None
    found = sha256(path.read_bytes())
    return found if sidecar(path).read_text().strip() == found else None


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Waits for another run in the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(root: Path, out: Path, platforms: list[str], wheel: Path | None) -> dict[str, Any]:
    """The answer, as in the head of this file."""
    wanted = list(dict.fromkeys(platform_of(text) for text in platforms))
    with alone_in(out):
        house = House(root / "requirements", out, project_wheel(root, wheel), Builder(root / "requirements", out))
        archives = [house.archive(platform) for platform in wanted]
    return {"changed": any(archive["changed"] for archive in archives), "archives": archives}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Builds the archives that hosts install pingmon from, without a network."
    )
    parser.add_argument("--root", type=Path, required=True, help="checkout or installed collection")
    parser.add_argument("--out", type=Path, required=True, help="where the archives go")
    parser.add_argument(
        "--platform", action="append", required=True, metavar="ROLE:PYTAG:ARCH", help="as in agent:cp311:x86_64"
    )
    parser.add_argument("--wheel", type=Path, help="the wheel of pingmon; else that of `make dist`, built if need be")
    given = parser.parse_args()
    try:
        answer = run(given.root.resolve(), given.out.resolve(), given.platform, given.wheel and given.wheel.resolve())
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"{error.filename}: {error.strerror}: --root has to be pingmon's tree, and --out yours to write.",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
