"""The life of a deployment: certificates, upgrade and rollback, backup and restore, and its end."""

from __future__ import annotations

import json
import time

from tests.support.processes import wait_for

from .bed import facts
from .fleet import AGENTS, Fleet


def no_round_lost(fleet: Fleet, since: float) -> None:
    fleet.wait()
    for agent, other in (AGENTS, AGENTS[::-1]):
        assert fleet.gaps(agent, other, since) == []


def test_a_new_certificate_costs_no_round_and_no_connection(fleet: Fleet) -> None:
    before, since = fleet.bed["server"].read("/etc/pingmon/tls/server.pem"), time.time()
    restarts = facts.show(fleet.bed["server"], "pingmon-server", "ExecMainStartTimestamp")
    fleet.play("rotate_certs.yml")
    assert fleet.bed["server"].read("/etc/pingmon/tls/server.pem") != before
    assert facts.show(fleet.bed["server"], "pingmon-server", "ExecMainStartTimestamp") == restarts
    no_round_lost(fleet, since)


def test_a_new_authority_costs_no_round(fleet: Fleet) -> None:
    before, since = fleet.ca_file.read_text(), time.time()
    fleet.play("rotate_certs.yml", "-e", "pingmon_rotate_ca=true")
    after = fleet.ca_file.read_text()
    assert after != before
    assert [fleet.bed[name].read("/etc/pingmon/ca.pem").strip() for name in AGENTS] == [after.strip()] * 2
    for name in AGENTS:  # they come again, and trust only the new one
        fleet.bed[name].run("systemctl", "restart", "pingmon-agent")
    fleet.wait()
    assert [gap for gap in fleet.gaps("agent1", "agent2", since) if gap > 11] == []


def test_an_agent_refuses_a_server_of_another_authority(fleet: Fleet) -> None:
    agent = fleet.bed["agent1"]
    right = agent.read("/etc/pingmon/ca.pem")
    old = next((fleet.ca_file.parent).glob("old-*")) / "ca.pem"
    try:
        agent.run("sh", "-c", "cat >/etc/pingmon/ca.pem", stdin=old.read_text())
        agent.run("systemctl", "restart", "pingmon-agent")
        wait_for(
            lambda: "certificate" in facts.journal_text(agent, time.time() - 30),
            "the refusal in the journal",
            every_s=0.5,
        )
        said = agent.run("pingmon-agent", "config", "check", "--connect", check=False)
        assert said.returncode == 1
        assert "/etc/pingmon/ca.pem" in said.stderr
    finally:
        agent.run("sh", "-c", "cat >/etc/pingmon/ca.pem", stdin=right)
        agent.run("systemctl", "restart", "pingmon-agent")
    fleet.wait("agent1")


def test_the_raw_mode_is_hardly_exposed_and_measures(fleet: Fleet) -> None:
    raw = json.dumps({"pingmon_agent_ping_mode": "raw", "pingmon_agent_log_level": "debug"})
    fleet.play("agents.yml", "--limit", "agent1", "-e", raw, "-e", "pingmon_batch=20%")
    assert facts.exposure(fleet.bed["agent1"], "pingmon-agent.service") <= 1.6
    assert "icmp=raw" in facts.journal_text(fleet.bed["agent1"], time.time() - 60)
    fleet.wait("agent1")


def test_upgrade_skew_and_rollback(fleet: Fleet) -> None:
    """The server first; agents of both releases report to servers of both; back again by one play."""
    since = time.time()
    new = ("-e", f"pingmon_version={fleet.next_version}")
    fleet.play("upgrade.yml", *new, "--limit", "server")
    assert fleet.versions() == {"server": fleet.next_version, **dict.fromkeys(AGENTS, fleet.version)}
    fleet.wait("--version", fleet.version)
    fleet.play("upgrade.yml", *new, "--limit", "pingmon_agents")
    assert set(fleet.versions().values()) == {fleet.next_version}
    fleet.wait("--version", fleet.next_version)
    fleet.play("rollback.yml", "--limit", "server")
    assert fleet.versions()["server"] == fleet.version
    fleet.wait("--version", fleet.next_version)
    fleet.play("rollback.yml", "--limit", "pingmon_agents")
    assert set(fleet.versions().values()) == {fleet.version}
    fleet.wait("--version", fleet.version)
    fleet.first.rolled_back = 1
    assert [gap for gap in fleet.gaps("agent1", "agent2", since) if gap > 11] == [], (
        "restarts cost the round under way at most"
    )
    assert set(fleet.play("site.yml").changed.values()) == {0}


def test_backup_and_restore_on_a_server_that_lost_everything(fleet: Fleet) -> None:
    fleet.play("backup.yml")
    backup = max((fleet.bed.inventory.parent / "backups").glob("pingmon-*.tar"))
    since = time.time()
    fleet.bed["server"].run("systemctl", "stop", "pingmon-server")
    fleet.bed["server"].run("find", "/var/lib/pingmon", "-type", "f", "-delete")
    fleet.play("restore.yml", "-e", f"pingmon_backup_file={backup}", "-e", "pingmon_restore_secrets=true")
    fleet.wait()
    assert fleet.gaps("agent1", "agent2", since - 10) == [], "agents send again what the backup does not have"


def test_uninstall_leaves_nothing_and_data_only_when_not_asked(fleet: Fleet) -> None:
    fleet.play("uninstall.yml")
    assert fleet.bed["server"].inside("/var/lib/pingmon/pingmon.db").exists()
    assert not fleet.bed["server"].inside("/opt/pingmon").exists()
    done = fleet.play("uninstall.yml", "-e", '{"pingmon_server_remove_data": true, "pingmon_agent_remove_data": true}')
    assert done.code == 0
    left = {host.name: fleet.first.changes_of(host) for host in fleet.bed.hosts.values()}
    fleet.first.left = sum(map(len, left.values()))
    assert left == {name: [] for name in left}
    for host in fleet.bed.hosts.values():
        assert "pingmon" not in host.read("/etc/passwd") + host.read("/etc/group")
        assert host.run("sysctl", "-n", "net.ipv4.ping_group_range").stdout.split() == ["1", "0"]
        assert facts.state(host) == "running"
        assert "pingmon" not in host.run("systemctl", "list-unit-files", "--no-pager").stdout
