"""What the roles write is what the programs read: templates rendered by Ansible, loaded by the real configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pingmon import config as server
from pingmon_agent import config as agent
from pingmon_agent.policy import policy_of
from tests.roles.ansible import ROOT, play

pytestmark = pytest.mark.slow
PIN = "a" * 32


def render(tmp_path: Path, role: str, template: str, **variables: Any) -> Path:
    """A template of a role with the role's defaults, and `variables` over them."""
    home, made = ROOT / "roles" / role, tmp_path / template.removesuffix(".j2")
    book = tmp_path / "render.yml"
    tasks = [
        {"ansible.builtin.template": {"src": str(home / "templates" / template), "dest": str(made), "mode": "0600"}}
    ]
    files = [str(home / "defaults/main.yml"), str(home / "vars/main.yml")]
    book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "vars_files": files, "tasks": tasks}]))
    (tmp_path / "hosts").write_text("probe-1.example.net ansible_host=192.0.2.17\n")
    done = play(
        book, "-e", json.dumps({"pingmon_address": "192.0.2.17", **variables}), inventory=str(tmp_path / "hosts")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_the_default_server_configuration_is_that_of_the_program(tmp_path: Path) -> None:
    made = server.load(render(tmp_path, "pingmon_server", "server.toml.j2"), {})
    plain = server.Config()
    assert made.server.public_url == "https://192.0.2.17:8443"
    assert (made.probing, made.targets, made.retention, made.limits, made.log) == (
        plain.probing, plain.targets, plain.retention, plain.limits, plain.log)  # fmt: skip
    assert made.metrics_networks == plain.metrics_networks
    assert (made.tls.certificate, made.tls.key) == ("/etc/pingmon/tls/server.pem", "/etc/pingmon/tls/server.key")


def test_every_section_can_be_set(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"probing": {"warn_ms": 20.5, "bad_ms": 90}, "log": {"level": "debug"}}
    wanted |= {"targets": {"owned_domains": 'quo"te.example, lan', "allow_loopback": True}}
    wanted |= {"limits": {"nat": "198.51.100.0/24"}, "tls": {"minimum_version": "1.2"}}
    made = server.load(render(tmp_path, "pingmon_server", "server.toml.j2", pingmon_server_settings=wanted), {})
    assert (made.probing.warn_ms, made.probing.bad_ms, made.targets.allow_loopback) == (20.5, 90.0, True)
    assert made.targets.owned_domains == 'quo"te.example, lan'
    assert (made.tls.minimum_version, made.limits.nat, made.log.level) == ("1.2", "198.51.100.0/24", "debug")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A place for what an agent's configuration must find."""
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    return tmp_path


def agent_config(here: Path, **variables: Any) -> agent.Config:
    settings = {"server": {"ca_file": str(here / "ca.pem")}, **variables.pop("pingmon_agent_settings", {})}
    where = {"pingmon_agent_server_host": "monitor", "pingmon_server_address": "192.0.2.10"}
    made = render(here, "pingmon_agent", "agent.toml.j2", pingmon_agent_settings=settings, **where, **variables)
    return agent.load(made, {})


def test_an_agent_that_the_server_approved_beforehand(here: Path) -> None:
    made = agent_config(here, __pingmon_agent_pin=PIN)
    assert (made.server.url, made.server.identity, made.passphrase) == ("wss://192.0.2.10:8443", PIN, "")
    assert (made.agent.hostname, made.agent.ip_address) == ("probe-1.example.net", "192.0.2.17")
    assert (made.agent.buffer, made.agent.start_spread_s, made.metrics.listen) == ("tmpfs", 15.0, "127.0.0.1:9765")


def test_an_agent_with_a_passphrase_finds_it_where_systemd_puts_it(here: Path) -> None:
    how = {"pingmon_agent_enrolment": "passphrase", "pingmon_agent_passphrase": "pm1-x"}
    text = render(here, "pingmon_agent", "agent.toml.j2", pingmon_agent_server_host="monitor", **how).read_text()
    assert 'passphrase_file = "/run/credentials/pingmon-agent.service/passphrase"' in text
    assert "identity" not in text
    assert "pm1-x" not in text


def test_a_policy_is_what_the_agent_reads(here: Path) -> None:
    wanted = {"allow": ["192.0.2.0/24", "2001:db8::/32"], "max_targets": 50, "min_interval_s": 2}
    made = render(here, "pingmon_agent", "agent-policy.toml.j2", pingmon_agent_policy=wanted)
    made.chmod(0o644)
    policy = policy_of(str(made), allow_loopback=False)
    assert (policy.max_targets, policy.min_interval_s, len(policy.allow)) == (50, 2, 2)


@pytest.mark.parametrize("mode", ["datagram", "raw"])
def test_the_unit_has_the_rights_of_its_mode_and_keeps_rounds(here: Path, mode: str) -> None:
    unit = render(
        here,
        "pingmon_agent",
        "pingmon-agent.service.j2",
        pingmon_agent_ping_mode=mode,
        pingmon_agent_server_host="monitor",
    ).read_text()
    lines = unit.splitlines()
    assert "RuntimeDirectoryPreserve=yes" in lines, "systemd would delete the rounds at each restart"
    assert ("AmbientCapabilities=CAP_NET_RAW" in lines) == (mode == "raw")
    assert ("PrivateUsers=yes" in lines) == (mode == "datagram"), "it takes CAP_NET_RAW away"
    assert not [line for line in lines if line.startswith("LoadCredential")]
