"""Ansible for the tests of the roles: the locked one of build/ansible, on this machine, with nothing of the user's."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build/ansible"


def program(name: str) -> str:
    """The path of one of Ansible's programs; fails with what to do where it is missing."""
    path = HOME / "bin" / name
    assert path.exists(), f"{path} is missing: run `sh .ci/setup.sh ansible`"
    return str(path)


def play(playbook: Path, *arguments: str, inventory: str = "localhost,") -> subprocess.CompletedProcess[str]:
    """Run a playbook here, with a plain connection."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(playbook.parent), "LC_ALL": "C.UTF-8"}
    environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
    return subprocess.run([program("ansible-playbook"), "-i", inventory, "-c", "local", "-e",
                           f"ansible_python_interpreter={program('python')}", str(playbook), *arguments],
                          capture_output=True, text=True, env=environment, timeout=100)  # fmt: skip


@cache
def _documents() -> dict[str, Any]:
    """All YAML of ours, read by the YAML library that Ansible brings along: the product has none."""
    script = "import json, pathlib, sys, yaml; print(json.dumps({p: yaml.safe_load(open(p)) for p in sys.argv[1:]}))"
    files = [
        path for part in ("roles", "playbooks", "meta", "inventory.example") for path in (ROOT / part).rglob("*.yml")
    ]
    done = subprocess.run([program("python"), "-c", script, *map(str, files), str(ROOT / "galaxy.yml")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def yaml_file(path: Path) -> Any:
    """What is in a YAML file of this repository."""
    return _documents()[str(path)]
