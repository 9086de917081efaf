"""The role pingmon_monitoring on a host with Debian's own Prometheus: what its systemd does, and what stays behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.peers import FETCHED
from tests.support.processes import make_pki

from .bed import facts
from .bed.ansible import Ansible, Played
from .bed.bed import Bed
from .bed.host import Host

CONFIG = "/etc/prometheus/prometheus.yml"


@dataclass
class Watcher:
    """A host with Prometheus as Debian's package sets it up, and the playbook for it."""

    host: Host
    ansible: Ansible
    place: Path

    def play(self, **variables: object) -> Played:
        """playbooks/monitoring.yml with these variables, without their prefix; it may fail."""
        given = {f"pingmon_monitoring_{name}": value for name, value in variables.items()}
        given["pingmon_monitoring_ca_src"] = str(self.place / "ca/ca.pem")
        words = ["-i", str(self.place / "group"), "-e", json.dumps(given)]
        return self.ansible.play("playbooks/monitoring.yml", *words, check=False)

    def include(self, printed: str) -> None:
        """Put the lines that a run printed under the same keys of prometheus.yml, as a person would."""
        found = re.findall(r'"msg": (\[\n.*?\n    \])', printed, re.DOTALL)
        lines = "\n".join(json.loads(found[-1])[1:])
        rules, jobs = lines.removeprefix("rule_files:\n").split("\nscrape_configs:\n")
        text = self.host.read(CONFIG).replace("\nrule_files:\n", f"\nrule_files:\n{rules}\n")
        self.host.inside(CONFIG).write_text(text.replace("\nscrape_configs:\n", f"\nscrape_configs:\n{jobs}\n"))


@pytest.fixture
def watcher(bed: Bed, ansible: Ansible, tmp_path: Path) -> Iterator[Watcher]:
    """One of the hosts; without Prometheus again afterwards."""
    package = next(FETCHED.glob("prometheus_*.deb"), None)
    assert package is not None, "the package of Prometheus is missing: run `sh .ci/setup.sh peers`"
    host = bed["agent1"]
    make_pki(tmp_path)
    (tmp_path / "group").write_text(f"[pingmon_monitoring]\n{host.name}\n")
    shutil.copy(package, host.inside("/root/prometheus.deb"))
    host.run("dpkg", "--force-depends", "--install", "/root/prometheus.deb")  # fonts and scripts are not needed here
    yield Watcher(host, ansible, tmp_path)
    host.run("dpkg", "--force-depends", "--purge", "prometheus")
    host.run("rm", "-r", "/root/prometheus.deb", "/etc/prometheus")


def test_a_prometheus_of_debian_is_reloaded_and_left_as_it_was(watcher: Watcher) -> None:
    """systemd reloads it and the play sees that it took the rules, or says so; absent leaves nothing behind."""
    before, original = facts.files(watcher.host), watcher.host.read(CONFIG)
    first = watcher.play()
    assert first.code == 0, first.output
    watcher.include(first.output)

    changed = watcher.play(alert_labels={"team": "net"}, require_included=True)
    assert changed.changed == {watcher.host.name: 2}, changed.output  # the rules, and the reload
    journal = watcher.host.run("journalctl", "-u", "prometheus", "-o", "cat").stdout
    assert journal.count("Completed loading of configuration file") == 3  # the start, and once in each run

    watcher.host.inside(CONFIG).write_text(watcher.host.read(CONFIG) + "nonsense: true\n")
    refused = watcher.play(promtool="no-such-promtool")
    assert "has not taken the new configuration: its log says why" in refused.output

    watcher.host.inside(CONFIG).write_text(original)
    gone = watcher.play(state="absent")
    assert gone.code == 0, gone.output
    assert watcher.host.run("systemctl", "is-active", "prometheus").stdout == "active\n"
    left = [line for line in facts.difference(before, facts.files(watcher.host)) if "/var/lib/prometheus" not in line]
    assert left == ["+ /etc/prometheus/rules"]
