"""What must not be seen is not: in what a play prints, in arguments and environments of processes, in journals."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import wait_for

from .bed import facts
from .fleet import Fleet

PASSPHRASE = "/etc/pingmon/credentials/passphrase"


def secret_of(passphrase: str) -> str:
    """The part that nobody may see, of pm1-ID-SECRET-PIN."""
    return passphrase.split("-")[2]


@pytest.fixture(scope="module")
def passphrase(fleet: Fleet) -> str:
    """agent2 set up anew, by a passphrase out of a vault; what the play printed is the last of fleet.played."""
    host = fleet.bed["agent2"]
    host.run("systemctl", "stop", "pingmon-agent")
    host.run("find", "/var/lib/pingmon-agent", "/run/pingmon-agent", "-type", "f", "-delete")
    fleet.server("agents", "delete", "agent2")
    secret = fleet.server("passphrases", "create", "--label", "site").strip()
    vault = fleet.bed.inventory.parent / "vault.json"
    vault.write_text(json.dumps({"vault_pingmon_agent_passphrase": secret, "pingmon_agent_enrolment": "passphrase"}))
    fleet.play("agents.yml", "--limit", "agent2", "-e", f"@{vault}", "--diff", "-vvv")
    return secret


def test_an_agent_with_a_passphrase_waits_for_approval_and_goes_on_by_itself(fleet: Fleet, passphrase: str) -> None:
    assert passphrase.startswith("pm1-")
    wait_for(
        lambda: "agent2" in fleet.server("agents", "list", "--state", "pending"),
        "agent2 to ask for approval",
        every_s=0.5,
    )
    fleet.server("agents", "approve", "agent2")
    fleet.wait("agent2")


def test_nothing_printed_has_the_passphrase(fleet: Fleet, passphrase: str) -> None:
    secret = secret_of(passphrase)
    assert not [name for name, _, said in fleet.played if secret in said.output]
    for host in fleet.bed.hosts.values():
        assert secret not in facts.journal_text(host), host.name


def test_no_process_has_a_secret_in_its_arguments_or_environment(fleet: Fleet, passphrase: str) -> None:
    key = fleet.bed["server"].read("/etc/pingmon/tls/server.key")
    keys = [line for line in key.splitlines() if "-----" not in line]
    for host in fleet.bed.hosts.values():
        seen = host.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'").stdout
        assert not [word for word in (passphrase, *keys) if word in seen], host.name
    assert not [name for name, _, said in fleet.played if keys[0] in said.output]


def test_files_with_secrets_are_for_those_who_need_them(fleet: Fleet, passphrase: str) -> None:
    server, agent = facts.files(fleet.bed["server"]), facts.files(fleet.bed["agent2"])
    assert (agent[PASSPHRASE].mode, agent[PASSPHRASE].owner) == ("-rw-------", "root")
    assert (server["/etc/pingmon/tls/server.key"].mode, server["/etc/pingmon/tls/server.key"].group) == (
        "-rw-r-----",
        "pingmon",
    )
    assert server["/var/lib/pingmon"].mode == "drwx------"
    assert agent["/var/lib/pingmon-agent/identity.key"].mode == "-rw-------"


def test_a_fleet_by_passphrase_gets_a_new_one(fleet: Fleet, passphrase: str) -> None:
    vault = fleet.bed.inventory.parent / "vault.json"
    done = fleet.play("rotate_passphrase.yml", "-e", f"@{vault}", "--limit", "server,agent2", "-vvv", "--diff")
    fresh = fleet.bed["agent2"].read(PASSPHRASE).strip()
    assert fresh.startswith("pm1-")
    assert fresh != passphrase
    assert (fleet.bed.inventory.parent / "new-passphrase").read_text().strip() == fresh
    assert secret_of(fresh) not in done.output
    fleet.wait("agent2")


def test_a_host_that_was_set_up_anew_takes_the_place_of_the_old_one(fleet: Fleet, passphrase: str) -> None:
    """Another key, the same agent; and back from the passphrase to approval by key, so no passphrase is left."""
    host, before = fleet.bed["agent2"], fleet.agent("agent2")
    host.run("systemctl", "stop", "pingmon-agent")
    host.run("find", "/var/lib/pingmon-agent", "/run/pingmon-agent", "-type", "f", "-delete")
    fleet.play("agents.yml", "--limit", "agent2", "-e", "pingmon_agent_replace_key=true")
    assert not host.inside("/etc/pingmon/credentials").exists()
    after = fleet.agent("agent2")
    assert after["id"] == before["id"]
    assert after["fingerprint"] != before["fingerprint"]
