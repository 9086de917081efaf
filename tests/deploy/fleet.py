"""The three hosts of the deploy tests and the Ansible that plays on them; by hand, a shell beside them.

    python -m tests.deploy --shell      boots the hosts and starts a shell on the controller, hosts gone at its end

Must not know: pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .bed import newest, spaces
from .bed.ansible import Ansible, Core, Installation
from .bed.bed import Bed

# One is Debian 13 on purpose: another Python, another systemd, and a stricter look at certificates.
FLEET = {"server": "bookworm", "agent1": "bookworm", "agent2": "trixie"}
NEWEST = "ansible-newest"  # among the images: not a host, but what the newest ansible-core lives in
LOGS = spaces.ROOT / "build/deploy-logs"
VARIABLE = "PINGMON_BED_IMAGES"
_HELP = """hosts: {hosts}
  ssh -F {ssh} server
  ansible-playbook -i $INVENTORY playbooks/site.yml"""


def handed_in() -> dict[str, Path]:
    """The trees that the process outside has prepared."""
    return {name: Path(tree) for name, tree in json.loads(os.environ[VARIABLE]).items()}


def make_bed(trees: Mapping[str, Path], logs: Path = LOGS) -> Bed:
    """Not yet started."""
    return Bed({host: trees[suite] for host, suite in FLEET.items()}, logs)


def make_ansible(bed: Bed, trees: Mapping[str, Path]) -> Ansible:
    """In all versions: build/ansible, build/ansible-oldest, and the newest on Debian 13."""
    root = newest.mount(trees[NEWEST], trees[newest.SUITE], bed.place / "newest")
    installations: dict[Core, Installation] = {
        "main": Installation(spaces.ROOT / "build/ansible/bin"),
        "oldest": Installation(spaces.ROOT / "build/ansible-oldest/bin"),
        "newest": Installation(newest.BIN, root),
    }
    return Ansible(installations, bed.inventory, bed.place, bed.logs)


def shell() -> int:
    """A developer's shell beside a running fleet; its exit code."""
    with make_bed(handed_in(), spaces.HOME / "logs") as bed:
        hosts = ", ".join(f"{host.name} {host.address}" for host in bed.hosts.values())
        print(_HELP.format(hosts=hosts, ssh=bed.ssh_config), flush=True)
        path = f"{spaces.ROOT}/build/ansible/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "INVENTORY": str(bed.inventory), "PS1": "bed# "}
        return subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(shell())
