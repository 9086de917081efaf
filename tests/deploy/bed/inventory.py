"""How Ansible finds the hosts of a bed: keys, known hosts, ssh options, an inventory in the form of inventory.example.

Must not know: what is played.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .host import Host

USER = "deploy"
GROUPS: Mapping[str, Sequence[str]] = {"pingmon_server": ("server",), "pingmon_agents": ("agent1", "agent2")}
EXAMPLE = Path(__file__).parents[3] / "inventory.example"


def make_key(place: Path) -> Path:
    """A fresh key pair `place` and `place`.pub, without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(place)], check=True)
    return place


def write_ssh_config(place: Path, key: Path, hosts: Iterable[Host]) -> Path:
    """ssh options for all hosts at place/ssh_config: this key, these host keys and no others."""
    known = place / "known_hosts"
    public = {host: host.read("/etc/ssh/ssh_host_ed25519_key.pub") for host in hosts}
    known.write_text("".join(f"{host.address},{host.name} {line}" for host, line in public.items()))
    options = {
        "User": USER, "IdentityFile": key, "IdentitiesOnly": "yes", "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "none", "StrictHostKeyChecking": "yes", "ConnectTimeout": 5,
        "ServerAliveInterval": 5, "ServerAliveCountMax": 4,  # a play over a cut path ends, and says so
        "ControlMaster": "auto", "ControlPersist": 60, "ControlPath": f"{place}/cm-%h",
    }  # fmt: skip
    config = place / "ssh_config"
    config.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in options.items()))
    return config


def write_inventory(
    folder: Path,
    hosts: Iterable[Host],
    ssh_config: Path,
    *,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    variables: Mapping[str, Any] | None = None,
    example: Path = EXAMPLE,
) -> Path:
    """`folder` with hosts.yml and, where there is an example inventory, its group_vars; the path of hosts.yml.

    `groups` gives the hosts of each group by name; `variables` hold for each host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (example / "group_vars").is_dir():
        shutil.copytree(example / "group_vars", folder / "group_vars", dirs_exist_ok=True)
    addresses = {host.name: {"ansible_host": host.address} for host in hosts}
    everywhere = {
        "ansible_user": USER,
        "ansible_ssh_common_args": f"-F {ssh_config}",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_become_method": "ansible.builtin.sudo",
    }
    children = {group: {"hosts": {name: addresses[name] for name in names}} for group, names in groups.items()}
    written = folder / "hosts.yml"  # JSON is YAML, and nothing need be quoted by hand
    written.write_text(json.dumps({"all": {"vars": everywhere, "children": children}}, indent=2) + "\n")
    _write_variables(folder / "host_vars", addresses, variables or {})
    return written


def _write_variables(folder: Path, names: Iterable[str], variables: Mapping[str, Any]) -> None:
    """For each host a file: these win over all that the example says for groups."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in names:
        (folder / f"{name}.yml").write_text(json.dumps(dict(variables), indent=2) + "\n")
