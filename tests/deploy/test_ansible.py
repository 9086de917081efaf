"""Ansible reaches the hosts of the bed, in all versions that the collection is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bed import facts
from .bed.ansible import Ansible, AnsibleFailed, Core, recap
from .bed.bed import Bed

PLAY = """
- hosts: all
  become: true
  gather_facts: false
  tasks:
    - name: Which version this is
      ansible.builtin.debug:
        var: ansible_version.full
    - name: A file that is not there the first time
      ansible.builtin.lineinfile:
        path: /etc/by-ansible
        line: by Ansible
        create: true
        mode: "0640"
"""
RECAP = """
TASK [Say PLAY RECAP] ***
PLAY RECAP ****
agent1   : ok=2    changed=1    unreachable=0    failed=0
server   : ok=12   changed=0    unreachable=1    failed=0
"""


def test_a_recap_is_read_as_it_is_printed() -> None:
    """The last one counts, and no run without one has changed nothing."""
    assert recap(RECAP) == {
        "agent1": {"ok": 2, "changed": 1, "unreachable": 0, "failed": 0},
        "server": {"ok": 12, "changed": 0, "unreachable": 1, "failed": 0},
    }
    assert recap("ERROR! the playbook could not be found") == {}


def test_each_version_plays_on_each_host(ansible: Ansible, bed: Bed, tmp_path: Path) -> None:
    """From the oldest promised to the newest there is: what the first changed, the others find done."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY)
    versions: dict[Core, str] = {"oldest": "2.17.", "newest": "2.21.", "main": "2.19."}
    played = {version: ansible.play(playbook, core=core) for core, version in versions.items()}
    for host in bed.hosts.values():
        host.run("rm", "/etc/by-ansible")

    assert [run.changed for run in played.values()] == [dict.fromkeys(bed.hosts, count) for count in (1, 0, 0)]
    assert all(f'"ansible_version.full": "{version}' in run.output for version, run in played.items())


def test_a_run_that_fails_is_a_failure(ansible: Ansible) -> None:
    """And says so."""
    with pytest.raises(AnsibleFailed, match="ended with"):
        ansible.module("ansible.builtin.command", "false", hosts="server")


def test_ansible_reboots_a_host(ansible: Ansible, bed: Bed) -> None:
    """The module that roles use for it finds the host again."""
    boots = bed["agent1"].boots
    ansible.module("ansible.builtin.reboot", "reboot_timeout=60 connect_timeout=2 post_reboot_delay=0", hosts="agent1")

    assert bed["agent1"].boots == boots + 1
    assert facts.state(bed["agent1"]) == "running"
