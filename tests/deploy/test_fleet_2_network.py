"""The mesh tells the truth about a network that is slow, parted or without power, and loses nothing of it."""

from __future__ import annotations

import time
from statistics import median

import pytest

from tests.support.processes import wait_for

from .bed import facts
from .bed.rules import CUT, Rule
from .fleet import AGENTS, EVERY_S, Fleet


@pytest.fixture(autouse=True)
def whole(fleet: Fleet) -> None:
    fleet.bed.heal()
    fleet.wait()


def test_30_ms_added_each_way_are_60_ms_in_the_api(fleet: Fleet) -> None:
    plain = median(s["rtt_ms"] for s in fleet.samples("agent1", "agent2")[-3:])
    fleet.bed.link("agent1", "agent2", Rule(delay_s=0.030))
    since = time.time()

    def slow() -> list[float]:
        found = [
            s["rtt_ms"] for s in fleet.samples("agent1", "agent2") if s["timestamp"] > since and s["status"] == "ok"
        ]
        return found if len(found) >= 3 else []

    found = wait_for(slow, "three slow rounds", every_s=0.3)
    assert median(found) - plain == pytest.approx(60, abs=1)
    assert fleet.samples("agent1", "server")[-1]["rtt_ms"] < 10, "another path is as fast as before"


def test_a_partition_heals_and_nothing_is_lost(fleet: Fleet) -> None:
    """An agent without its server goes on measuring, and delivers; what it could not reach is loss, not a hole."""
    since = time.time()
    fleet.bed.link("agent1", "server", CUT)
    time.sleep(4 * EVERY_S)
    assert not [s for s in fleet.samples("agent1", "agent2") if s["timestamp"] > since + EVERY_S + 1]
    fleet.bed.heal()
    fleet.wait("agent1")
    assert fleet.gaps("agent1", "agent2", since) == fleet.gaps("agent1", "server", since) == []
    assert {s["status"] for s in fleet.samples("agent1", "server") if s["timestamp"] > since} == {"ok", "timeout"}
    assert {s["status"] for s in fleet.samples("agent1", "agent2") if s["timestamp"] > since} == {"ok"}


def test_a_power_cut_of_the_server_costs_no_round(fleet: Fleet) -> None:
    since = time.time()
    fleet.bed["server"].cut_power()
    time.sleep(2 * EVERY_S)
    fleet.bed["server"].boot()
    fleet.wait()
    for agent, other in (AGENTS, AGENTS[::-1]):
        assert fleet.gaps(agent, other, since) == []
    assert facts.state(fleet.bed["server"]) == "running"


@pytest.mark.parametrize("name", ["server", *AGENTS])
def test_every_host_comes_back_from_a_reboot(fleet: Fleet, name: str) -> None:
    since = time.time()
    fleet.bed[name].reboot()
    fleet.wait()
    assert fleet.wait_until_live(since) < 30
    assert facts.state(fleet.bed[name]) == "running"
    fleet.first.rebooted.add(name)
