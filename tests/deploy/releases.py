"""Two releases of pingmon to go between: the wheel of this tree, and the same code under the next number.

There is no earlier release with units yet: from the next one on, the wheel before belongs here.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEELHOUSE = ROOT / "build/deploy-wheelhouse"
VERSION, NEXT = "0.1.0", "0.1.1"
PLATFORMS = ("server:cp311", "agent:cp311", "agent:cp313")  # of the hosts of the bed: Debian 12, and an agent on 13


class WheelhouseError(Exception):
    """The releases could not be built; the text says which."""


def renumbered(wheel: Path, version: str, folder: Path) -> Path:
    """A copy of `wheel` that calls itself `version`, in `folder`."""
    old = wheel.name.split("-")[1]
    made = folder / wheel.name.replace(f"-{old}-", f"-{version}-")
    info, records = f"pingmon-{old}.dist-info/", []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist()):
            if name == f"{info}RECORD":
                continue
            content = source.read(name)
            if name == f"{info}METADATA":
                content = content.replace(f"\nVersion: {old}\n".encode(), f"\nVersion: {version}\n".encode())
            renamed = name.replace(info, f"pingmon-{version}.dist-info/")
            target.writestr(zipfile.ZipInfo(renamed), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            records.append(f"{renamed},sha256={digest},{len(content)}")
        record = f"pingmon-{version}.dist-info/RECORD"
        target.writestr(zipfile.ZipInfo(record), "\n".join([*records, f"{record},,", ""]))
    return made


def prepare() -> None:
    """Both releases in `WHEELHOUSE`, by what playbooks/wheelhouse.yml runs; needs the package index the first time."""
    wheels = WHEELHOUSE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    _build("the wheelhouse", [])
    wheel = max((ROOT / "dist").glob("pingmon-*.whl"))
    _build("the wheelhouse of the next release", ["--wheel", str(renumbered(wheel, NEXT, wheels))])


def _build(what: str, words: list[str]) -> None:
    program, python = ROOT / "roles/pingmon_common/files/wheelhouse.py", ROOT / "build/ansible/bin/python"
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}:{platform.machine()}")]
    argv = [str(python), str(program), "--root", str(ROOT), "--out", str(WHEELHOUSE), *platforms, *words]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise WheelhouseError(f"{what} could not be built; what was said stands above.")
