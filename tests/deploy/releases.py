"""Two releases of pingmon to go between: the wheel of this tree, and the same code under the next number.

There is no earlier release with units yet: from the next one on, the wheel before belongs here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLATFORMS = ("server:cp311", "agent:cp311", "agent:cp313")  # of the hosts of the bed: Debian 12, and an agent on 13


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
            name = name.replace(info, f"pingmon-{version}.dist-info/")
            target.writestr(zipfile.ZipInfo(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(content)}")
        record = f"pingmon-{version}.dist-info/RECORD"
        target.writestr(zipfile.ZipInfo(record), "\n".join([*records, f"{record},,", ""]))
    return made


def build(wheel: Path, out: Path, python: Path, arch: str, platforms: Iterable[str] = PLATFORMS) -> None:
    """The archives for a wheel, by the program that playbooks/wheelhouse.yml runs; needs the package index at first."""
    wanted = [word for platform in platforms for word in ("--platform", f"{platform}:{arch}")]
    program = ROOT / "roles/pingmon_common/files/wheelhouse.py"
    argv = [str(python), str(program), "--root", str(ROOT), "--out", str(out), "--wheel", str(wheel), *wanted]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the wheelhouse of the deploy tests was not built ({done.returncode}); what it said stands above.")
    json.loads(done.stdout.splitlines()[-1])
