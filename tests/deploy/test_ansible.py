"""Ansible reaches the hosts of the bed, in all versions that the collection is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bed import facts
from .bed.ansible import Ansible, AnsibleFailed, Core
from .bed.bed import Bed

PLAY = """
- hosts: all
  become: true
  tasks:
    - name: A file that is not there the first time
      ansible.builtin.copy:
        content: "by Ansible\\n"
        dest: /etc/by-ansible
        mode: "0640"
"""


@pytest.mark.parametrize(("core", "version"), [("oldest", "2.17."), ("main", "2.19."), ("newest", "2.21.")])
def test_each_version_reaches_each_host(ansible: Ansible, core: Core, version: str) -> None:
    """From the oldest promised to the newest there is."""
    assert ansible.version(core).startswith(version)
    assert ansible.module("ansible.builtin.ping", core=core).output.count("SUCCESS") == 3


def test_a_play_is_counted(ansible: Ansible, bed: Bed, tmp_path: Path) -> None:
    """Changed the first time, not the second, by host; another version agrees; and a failure is one."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY)
    first, second = ansible.play(playbook), ansible.play(playbook, core="newest")
    bed.rollback()

    assert (first.changed, second.changed) == ({name: 1 for name in bed.hosts}, {name: 0 for name in bed.hosts})
    with pytest.raises(AnsibleFailed, match="ended with"):
        ansible.play(playbook, "-e", "ansible_user=nobody")


def test_ansible_reboots_a_host(ansible: Ansible, bed: Bed) -> None:
    """The module that roles use for it finds the host again."""
    boots = bed["agent1"].boots
    ansible.module("ansible.builtin.reboot", "reboot_timeout=60 connect_timeout=2 post_reboot_delay=0", hosts="agent1")

    assert bed["agent1"].boots == boots + 1
    assert facts.state(bed["agent1"]) == "running"
