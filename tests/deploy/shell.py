"""A developer's shell beside the hosts of the deploy tests, which end with it: `python -m tests.deploy --shell`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .bed import spaces
from .bed.bed import Bed
from .conftest import FLEET

_HELP = """hosts: {hosts}
  ssh -F {ssh} {first}
  ansible-playbook -i $INVENTORY playbooks/site.yml"""


def main() -> int:
    """Boot, run $SHELL with Ansible on its path, take down; the shell's exit code."""
    images = json.loads(os.environ["PINGMON_BED_IMAGES"])
    with Bed({host: Path(images[suite]) for host, suite in FLEET.items()}, spaces.HOME / "logs") as bed:
        hosts = [f"{host.name} {host.address}" for host in bed.hosts.values()]
        first = next(iter(bed.hosts.values()))
        print(_HELP.format(hosts=", ".join(hosts), ssh=bed.ssh_config, first=first.address), flush=True)
        path = f"{spaces.ROOT}/build/ansible/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "INVENTORY": str(bed.inventory), "PS1": "bed# "}
        return subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
