"""The role pingmon_monitoring, run by Ansible on this machine: into a directory, for a Prometheus that runs there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.roles.ansible import ROOT, play
from tests.support.processes import make_pki
from tests.support.prometheus import Prometheus, program, promtool, running_prometheus

# Each run of the role takes seconds of processor time: a test has one or two, whatever else this machine does.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
INVENTORY = """
[pingmon_server]
monitor ansible_host=192.0.2.9
[pingmon_agents]
open ansible_host=192.0.2.11 pingmon_agent_metrics_listen=0.0.0.0:9765 pingmon_monitoring_labels='{"site": "eu"}'
six ansible_host=2001:db8::3 pingmon_agent_metrics_listen=[::]:9765
fixed pingmon_agent_metrics_listen=192.0.2.14:9777
closed ansible_host=192.0.2.15
silent pingmon_agent_metrics_listen=""
watcher
[pingmon_monitoring]
watcher
"""
HERE = {
    "prometheus_config": "etc/prometheus.yml",
    "config_dir": "etc/pingmon",
    "rules_dir": "etc/rules",
    "ca_src": "pki/ca/ca.pem",
    "grafana_provisioning_dir": "grafana/provisioning",
    "grafana_dashboards_dir": "grafana/dashboards/pingmon",
}
MADE = {
    "etc/rules/pingmon.yml",
    "etc/pingmon/ca.pem",
    "etc/pingmon/scrape.yml",
    "etc/pingmon/server.yml",
    "etc/pingmon/agents.yml",
    "grafana/provisioning/dashboards/pingmon.yaml",
    "grafana/dashboards/pingmon/pingmon-mesh.json",
}


@dataclass
class Played:
    """One run of the playbook."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """How many tasks changed something; AssertionError where the run failed."""
        assert self.code == 0, self.output
        return int(re.findall(r" changed=(\d+) ", self.output)[-1])

    @property
    def refusal(self) -> str:
        """What it said as it failed."""
        assert self.code != 0, self.output
        return str(re.findall(r'"msg": "(.*)"', self.output)[-1])


@dataclass
class Host:
    """A directory that stands for the host of a Prometheus and a Grafana."""

    home: Path
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.home / HERE["prometheus_config"]

    def run(self, *words: str, **variables: Any) -> Played:
        """playbooks/monitoring.yml with these variables over those of this host."""
        given: dict[str, Any] = {name: str(self.home / place) for name, place in HERE.items()}
        given |= {"promtool": program("promtool"), **self.variables, **variables}
        given = {f"pingmon_monitoring_{name}": value for name, value in given.items()}
        # Whoever runs the tests owns the directory, so nobody has to become root.
        given |= {"ansible_become": False, "ansible_pipelining": True}
        (self.home / "hosts").write_text(INVENTORY)
        book = self.home / "book.yml"
        book.write_text(json.dumps([{"import_playbook": str(ROOT / "playbooks/monitoring.yml")}]))
        done = play(book, *words, "-e", json.dumps(given), inventory=str(self.home / "hosts"))
        return Played(done.returncode, done.stdout + done.stderr)

    def files(self) -> set[str]:
        """Everything there that the role could have made."""
        places = [self.home / "etc", self.home / "grafana"]
        found = [path for place in places for path in place.rglob("*") if path.is_file() and path != self.config]
        return {str(path.relative_to(self.home)) for path in found}


def stanza(output: str) -> str:
    """The lines for prometheus.yml that a run printed."""
    printed = re.search(r'"msg": (\[\n.*?\n    \])', output, re.DOTALL)
    assert printed, output
    head, *lines = json.loads(printed[1])
    assert head.startswith("Add to ")
    return "\n".join(lines) + "\n"


@dataclass
class Installed(Host):
    """One on which the role ran once, with a Prometheus that takes what the role printed."""

    first: Played = field(default_factory=lambda: Played(1, "not run"))
    prometheus: Prometheus = field(init=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The tests change what they need to and put it back."""
    host = Installed(tmp_path_factory.mktemp("watcher"), {"reload": "none"})
    for name in ("etc", "pki", "grafana/provisioning"):
        (host.home / name).mkdir(parents=True)
    make_pki(host.home / "pki")  # without a real authority Prometheus makes no scrape pool at all
    host.config.write_text("global: {scrape_interval: 15s}\n")
    host.first = host.run()
    host.config.write_text(host.config.read_text() + stanza(host.first.output))
    with running_prometheus(host.home, host.config) as host.prometheus:
        host.variables |= {"reload": "url", "prometheus_url": host.prometheus.url}
        yield host


def test_a_check_of_a_bare_host_succeeds_and_leaves_nothing(tmp_path: Path) -> None:
    """Neither Prometheus nor Grafana nor an authority is there yet; a real run says what is missing."""
    bare = Host(tmp_path)
    checked = bare.run("--check", "--diff", promtool="no-such-promtool", grafana="always")

    assert checked.changed > 0
    assert "no-such-promtool does not run on this host" in checked.output
    assert bare.files() == set()
    assert "etc/prometheus.yml is not on this host: install Prometheus before" in bare.run().refusal


def test_the_first_run_makes_everything_and_prints_the_rest(installed: Installed) -> None:
    """The files, those of agents it cannot reach by name, and lines that make prometheus.yml whole."""
    assert installed.first.changed > 0
    assert installed.files() == MADE
    assert "so they are left out: closed." in installed.first.output
    assert promtool("check", "config", str(installed.config))[0] == 0


def test_a_second_run_changes_nothing(installed: Installed) -> None:
    """And has nothing to print any more: everything is included."""
    second = installed.run(require_included=True)

    assert second.changed == 0
    assert "Add to " not in second.output


def test_prometheus_scrapes_what_the_inventory_has(installed: Installed) -> None:
    """By addresses of the inventory and by labels, never by the loopback of another host."""
    pools = json.loads(installed.prometheus.get("/api/v1/targets")[1])["data"]["activeTargets"]
    found = {
        (one["scrapePool"], one["scrapeUrl"], one["labels"]["instance"], one["labels"].get("site")) for one in pools
    }

    assert found == {
        ("pingmon-server", "https://192.0.2.9:8443/metrics", "192.0.2.9:8443", None),
        ("pingmon-agent", "http://192.0.2.11:9765/metrics", "192.0.2.11:9765", "eu"),
        ("pingmon-agent", "http://[2001:db8::3]:9765/metrics", "[2001:db8::3]:9765", None),
        ("pingmon-agent", "http://192.0.2.14:9777/metrics", "192.0.2.14:9777", None),
        ("pingmon-agent", "http://127.0.0.1:9765/metrics", "watcher:9765", None),
    }


def test_changed_rules_reach_prometheus(installed: Installed) -> None:
    """Labels, a runbook's address, an alert left out: one file changes, and Prometheus was told and has it."""
    base = "https://wiki.example.net/runbooks"
    more = {"alert_labels": {"team": "net"}, "alerts_disabled": ["PingmonVersionMismatch"], "runbook_base_url": base}
    assert installed.run(grafana="never", **more).changed == 1

    groups = json.loads(installed.prometheus.get("/api/v1/rules?type=alert")[1])["data"]["groups"]
    alerts = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert "PingmonVersionMismatch" not in alerts
    down = alerts["PingmonTargetDown"]
    assert down["labels"] == {"severity": "critical", "team": "net"}
    assert down["annotations"]["runbook_url"] == f"{base}/PingmonTargetDown.md"
    assert "{{ $labels.target }}" in down["annotations"]["description"]


def test_what_prometheus_would_not_take_is_said_before_it_is_told(installed: Installed) -> None:
    """A broken prometheus.yml fails the run with promtool's words, and Prometheus runs on."""
    before = installed.config.read_text()
    installed.config.write_text("scrape_configs: [{job_name: a}, {job_name: a}]\n")
    said = installed.run(alert_labels={"team": "other"}, grafana="never").refusal
    installed.config.write_text(before)

    assert "promtool refuses" in said
    assert "found multiple scrape configs with job name" in said
    assert installed.prometheus.get("/-/ready")[0] == 200


def test_wrong_variables_are_refused_with_a_sentence(installed: Installed) -> None:
    """An alert that is not there, a target with a scheme."""
    assert "there is no such alert: take one of PingmonTargetDown" in installed.run(alerts_disabled=["X"]).refusal
    assert "give host:port without a scheme" in installed.run(server_targets=["https://monitor:8443"]).refusal


READ = "__pingmon_monitoring_read"
JOBS = """
  - {job_name: pingmon-server, file_sd_configs: [{files: [/etc/prometheus/pingmon/server.yml]}]}
  - {job_name: JOB, file_sd_configs: [{files: [pingmon/agent*.y?l]}]}
"""
CONFIGS = {
    "": (False, False),
    "global: {}": (False, False),
    "rule_files:": (False, False),
    "rule_files: [rules/*.yml]": (True, False),
    "rule_files: [/other/pingmon.yml, /etc/prometheus/rules/pingmon.yml]": (True, False),
    "rule_files: [rules/pingmon.yml.old, '*/pingmonXyml', /etc/*.yml]": (False, False),
    f"scrape_configs:{JOBS}".replace("JOB", "pingmon-agent"): (False, True),
    f"scrape_configs:{JOBS}".replace("JOB", "agents"): (False, False),
    "scrape_configs: [{job_name: pingmon-server}, {job_name: pingmon-agent}]": (False, False),
    "scrape_config_files: [pingmon/scrape.yml]": (False, True),
}


def test_what_prometheus_includes_is_seen(tmp_path: Path) -> None:
    """Globs, paths beside prometheus.yml, jobs by the names that the rules use, and the files of newer versions."""
    home = ROOT / "roles/pingmon_monitoring"
    seen = f"{{{{ lookup('ansible.builtin.template', '{home}/templates/included.yml.j2') | from_yaml | to_json }}}}"
    reads = [{"content": base64.b64encode(text.encode()).decode()} for text in CONFIGS]
    task = {"ansible.builtin.debug": {"msg": f"@{seen}@"}, "loop": reads, "loop_control": {"loop_var": READ}}
    files = [str(home / "defaults/main.yml"), str(home / "vars/main.yml")]
    book = tmp_path / "book.yml"
    book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "vars_files": files, "tasks": [task]}]))

    said = play(book).stdout

    found = [json.loads(json.loads(f'"{one}"')) for one in re.findall(r'"msg": "@(.*)@"', said)]
    assert [(one["rules"], one["jobs"]) for one in found] == list(CONFIGS.values()), said


def test_absent_removes_its_files_and_no_others(tmp_path: Path) -> None:
    """What others put beside stays, and what prometheus.yml still names is said."""
    host = Host(tmp_path, {"reload": "none"})
    for name in (*MADE, "etc/pingmon/other.yml", "etc/rules/other.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# of somebody\n")
    host.config.write_text("rule_files: [rules/*.yml]\n")

    gone = host.run(state="absent")

    assert gone.changed == 3
    assert "still includes files of pingmon" in gone.output
    assert host.files() == {"etc/pingmon/other.yml", "etc/rules/other.yml"}
    assert not (tmp_path / "grafana/dashboards/pingmon").exists()
