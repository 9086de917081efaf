"""Every way to aim more of the fleet at a stranger is judged: what adds a target, a probe or an agent, each alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pingmon.services.bundle import Services
from pingmon_agent.wire.contract import Probe, State
from pingmon_agent.wire.framing import b64u

from .conftest import Open
from .test_aim import THEIRS, approve, refusal, register


@pytest.fixture
def full(opened: Open) -> Iterator[Services]:
    """Two agents ping a stranger each second, who then gets the two packets a second that are allowed here."""
    with opened(interval_s=1.0, foreign_packets_per_s=2.0) as services:
        approve(services, 2)
        services.registry.add_target("dns", THEIRS, "test")
        services.registry.add_target("ours", "10.9.9.9", "test")
        yield services


def test_no_way_past_the_budget_by_one_more_target(full: Services) -> None:
    """Under another name, the same address."""
    assert "= 4 packets/s > 2" in refusal(lambda: full.registry.add_target("same", THEIRS, "test"))


def test_no_way_past_the_budget_by_a_whole_list(full: Services) -> None:
    """PUT and import judge the list that comes out of it."""
    whole = [("dns", THEIRS), ("ours", "10.9.9.9"), ("same", THEIRS)]
    assert "= 4 packets/s > 2" in refusal(lambda: full.registry.put_targets(whole, "test"))


def test_no_way_past_the_budget_by_another_address_or_interval(full: Services) -> None:
    """A target that was one of ours, and probes that were seldom."""
    assert "= 4 packets/s > 2" in refusal(lambda: full.registry.change_target("ours", "test", address=THEIRS))
    full.registry.change_target("dns", "test", probe=Probe(count=2, interval_s=2))
    assert "= 4 packets/s > 2" in refusal(lambda: full.registry.change_target("dns", "test", probe=Probe(count=2)))


def test_no_way_past_the_budget_by_one_more_agent(full: Services) -> None:
    """It waits on, and may be approved once there is room."""
    [late] = register(full, 1)
    assert "= 3 packets/s > 2" in refusal(lambda: full.registry.approve(late, "test"))
    assert full.registry.agent(late).state is State.PENDING


def test_no_way_past_the_budget_by_an_agent_that_was_rejected(full: Services) -> None:
    """Its place was taken meanwhile."""
    full.registry.reject("probe-1", "test")
    approve(full, 1)
    assert "= 3 packets/s > 2" in refusal(lambda: full.registry.approve("probe-1", "test"))


def test_no_way_past_the_budget_by_a_key_that_is_vouched_for(full: Services) -> None:
    """Approval before the first contact is an approval."""
    key = b64u(b"k" * 32)
    assert "= 3 packets/s > 2" in refusal(lambda: full.registry.preapprove("new", "10.0.1.1", key, "test"))


def test_no_way_past_the_budget_by_a_hold_and_its_release(full: Services) -> None:
    """An agent on hold goes on measuring, so its share is not free for another one."""
    full.registry.hold("probe-1", "test")
    [late] = register(full, 1)
    assert "= 3 packets/s > 2" in refusal(lambda: full.registry.approve(late, "test"))
    assert full.registry.release("probe-1", "test").state is State.APPROVED


def test_more_but_slower_targets_are_more(opened: Open) -> None:
    """Above the number of targets, after it was lowered: fewer packets do not make room for more targets."""
    three = [(f"t{n}", f"10.0.0.{n}") for n in range(3)]
    slower = [(*item, Probe(interval_s=60)) for item in [*three, ("t3", "10.0.0.3")]]
    with opened(agent_targets=3) as services:
        services.registry.put_targets(three, "test")
    with opened(agent_targets=2) as services:
        assert "4 targets > 2" in refusal(lambda: services.registry.put_targets(slower, "test"))
        assert len(services.registry.put_targets(slower[:3], "test")) == 3
