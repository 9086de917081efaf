"""From bare hosts to a live mesh: what an infra team sees when it runs site.yml, once, again, and to check."""

from __future__ import annotations

import re

import pytest

from .bed import facts
from .fleet import AGENTS, Fleet

UNITS = {"server": "pingmon-server.service", **dict.fromkeys(AGENTS, "pingmon-agent.service")}


def test_the_wheelhouse_is_what_these_hosts_need(fleet: Fleet) -> None:
    """Built before, outside, where there is a package index: here the play finds out that nothing is missing."""
    done = fleet.play("wheelhouse.yml")
    assert done.changed == dict.fromkeys(UNITS, 0)
    assert done.output.count("pingmon-agent-") + done.output.count("pingmon-server-") >= 3


def test_a_check_of_bare_hosts_succeeds_and_changes_nothing(fleet: Fleet) -> None:
    assert fleet.first.check_failed == 0
    assert fleet.first.check_left == []


def test_the_first_run_changes_every_host(fleet: Fleet) -> None:
    assert fleet.first.run is not None
    assert all(counts["changed"] > 0 for counts in fleet.first.run.recap.values())
    assert all(counts["failed"] == counts["unreachable"] == 0 for counts in fleet.first.run.recap.values())


def test_all_pairs_are_measured_within_15_s_of_its_end(fleet: Fleet) -> None:
    assert fleet.first.live_after_s <= 15, "the play ends when the server has rounds of every agent"


def test_every_host_is_whole_and_no_journal_has_an_error(fleet: Fleet) -> None:
    assert fleet.first.states == ["running"] * 3
    assert fleet.first.errors == []


@pytest.mark.parametrize("which", [0, 1], ids=["second", "third, by the oldest Ansible"])
def test_a_further_run_changes_nothing(fleet: Fleet, which: int) -> None:
    assert fleet.first.again[which].changed == dict.fromkeys(UNITS, 0)


def test_a_check_by_the_newest_ansible_of_deployed_hosts_changes_nothing(fleet: Fleet) -> None:
    skip = (*facts.RESTLESS, "/var/lib/pingmon/*", "/var/lib/pingmon-agent/*")  # they go on measuring
    before = {host.name: facts.files(host, skip=skip) for host in fleet.bed.hosts.values()}
    done = fleet.play("site.yml", "--check", "--diff", core="newest")
    assert done.changed == dict.fromkeys(UNITS, 0)
    assert [facts.difference(before[host.name], facts.files(host, skip=skip)) for host in fleet.bed.hosts.values()] == [
        []
    ] * 3


def test_no_release_of_ansible_has_anything_to_warn_of(fleet: Fleet) -> None:
    said = [done.output for name, _, done in fleet.played if name == "site.yml"]
    assert len(said) >= 5
    assert not [text for text in said if re.search(r"DEPRECAT|\[WARNING\]: (?!Could not match)", text)]


@pytest.mark.parametrize(("host", "most"), [("server", 1.3), ("agent1", 1.3)])
def test_systemd_finds_the_units_hardly_exposed(fleet: Fleet, host: str, most: float) -> None:
    assert facts.exposure(fleet.bed[host], UNITS[host]) <= most
    shown = facts.show(fleet.bed[host], UNITS[host], "Type", "WatchdogUSec", "NRestarts", "ActiveState")
    assert shown == {"Type": "notify", "WatchdogUSec": "30s", "NRestarts": "0", "ActiveState": "active"}


def test_the_table_of_verify_names_every_agent(fleet: Fleet) -> None:
    said = fleet.play("verify.yml").output
    for name in AGENTS:
        assert re.search(rf"{name}\s+approved\s+active", said), said
