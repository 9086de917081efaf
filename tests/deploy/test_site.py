"""From bare hosts to a live mesh: what an infra team sees when it runs site.yml, once, again, and to check."""

from __future__ import annotations

import re

import pytest

from .bed import facts
from .bed.ansible import Core
from .fleet import AGENTS, Fleet

UNITS = {"server": "pingmon-server.service", **dict.fromkeys(AGENTS, "pingmon-agent.service")}


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


@pytest.mark.parametrize("which", [0, 1], ids=["second", "third"])
def test_a_further_run_changes_nothing(fleet: Fleet, which: int) -> None:
    assert fleet.first.again[which].changed == dict.fromkeys(UNITS, 0)


def test_a_check_of_deployed_hosts_changes_nothing(fleet: Fleet) -> None:
    before = {host.name: facts.files(host) for host in fleet.bed.hosts.values()}
    done = fleet.play("site.yml", "--check", "--diff")
    assert done.changed == dict.fromkeys(UNITS, 0)
    assert [facts.difference(before[host.name], facts.files(host)) for host in fleet.bed.hosts.values()] == [[]] * 3


@pytest.mark.parametrize("core", ["oldest", "newest"])
def test_other_releases_of_ansible_do_the_same(fleet: Fleet, core: Core) -> None:
    done = fleet.play("site.yml", core=core)
    assert done.changed == dict.fromkeys(UNITS, 0)
    assert not re.search(r"DEPRECATION|\[WARNING\]: (?!Could not match)", done.output), done.output


@pytest.mark.parametrize(("host", "most"), [("server", 1.3), ("agent1", 1.3)])
def test_systemd_finds_the_units_hardly_exposed(fleet: Fleet, host: str, most: float) -> None:
    assert facts.exposure(fleet.bed[host], UNITS[host]) <= most
    shown = facts.show(fleet.bed[host], UNITS[host], "Type", "WatchdogUSec", "NRestarts", "ActiveState")
    assert shown == {"Type": "notify", "WatchdogUSec": "30s", "NRestarts": "0", "ActiveState": "active"}


def test_the_table_of_verify_names_every_agent(fleet: Fleet) -> None:
    said = fleet.play("verify.yml").output
    for name in AGENTS:
        assert re.search(rf"{name}\s+approved\s+active", said), said
