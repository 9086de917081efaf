"""What agents refuse to ping reaches all who ask: memory, directory, API, metrics; nonsense reaches nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pingmon.services.bundle import Services, open_services
from pingmon.services.refusals import Refusals
from pingmon_agent.wire.contract import WireError

from .conftest import Approve, FakeClock

MULTICAST = "it is a multicast address, not one host"


@pytest.fixture
def two(services: Services, approve: Approve) -> tuple[int, list[int]]:
    """(an agent's number, ids of two targets)."""
    agent = approve()
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "b.example")], "test")
    return agent.no, [target.id for target in services.registry.targets() if target.agent_no is None]


def codes(services: Services, agent_no: int) -> dict[str, str]:
    shown = services.refusals.shown(agent_no, services.registry.snapshot.targets)
    return {row["target"]: row["code"] for row in shown["refused"]}


def test_the_newest_word_counts(services: Services, two: tuple[int, list[int]]) -> None:
    """A set's acknowledgement replaces all, a report replaces the names, and targets that are gone are not shown."""
    agent_no, (a, b) = two
    services.refusals.acknowledged(agent_no, {"ok": True, "refused": [[a, "E_POLICY_MULTICAST"]]})
    services.refusals.reported(agent_no, ((b, "E_POLICY_LOOPBACK"),))
    both = codes(services, agent_no)
    services.refusals.reported(agent_no, ())
    address_only = codes(services, agent_no)
    services.registry.remove_target("a", "test")
    gone = services.refusals.shown(agent_no, services.registry.snapshot.targets)
    services.refusals.reported(agent_no, ((b, "E_POLICY_LOOPBACK"),))
    services.refusals.acknowledged(agent_no, {"ok": True, "refused": []})

    assert both == {"a": "E_POLICY_MULTICAST", "b": "E_POLICY_LOOPBACK"}
    assert address_only == {"a": "E_POLICY_MULTICAST"}
    assert gone == {"refused_count": 0, "refused": []}
    assert codes(services, agent_no) == {}


def test_a_refusal_says_why_in_words(services: Services, two: tuple[int, list[int]]) -> None:
    """Also for one cell; a code of a newer agent stands for itself."""
    agent_no, (a, b) = two
    services.refusals.acknowledged(
        agent_no, {"ok": True, "refused": [[a, "E_POLICY_MULTICAST"], [b, "E_POLICY_NEW_ONE"]]}
    )

    assert services.refusals.why(agent_no, a) == {"code": "E_POLICY_MULTICAST", "reason": MULTICAST}
    assert services.refusals.why(agent_no, b) == {
        "code": "E_POLICY_NEW_ONE",
        "reason": "the agent's host says E_POLICY_NEW_ONE",
    }
    assert services.refusals.why(agent_no + 1, a) is None


def test_the_command_line_reads_what_was_saved(
    services: Services, two: tuple[int, list[int]], clock: FakeClock
) -> None:
    """At once where it is the first word, once in ten seconds where an agent keeps changing it, and by the job."""
    agent_no, (a, b) = two

    def saved() -> dict[int, str]:
        again = Refusals(services.directory, clock)
        return {t: code for t in (a, b) if (why := again.why(agent_no, t)) for code in [why["code"]]}

    services.refusals.acknowledged(agent_no, {"ok": True, "refused": [[a, "E_POLICY_DENIED"]]})
    first = saved()
    services.refusals.reported(agent_no, ((b, "E_POLICY_LOOPBACK"),))
    too_soon = saved()
    services.refusals.flush()
    flushed = saved()
    clock.advance(11)
    services.refusals.reported(agent_no, ())
    later = saved()

    assert first == too_soon == later == {a: "E_POLICY_DENIED"}
    assert flushed == {a: "E_POLICY_DENIED", b: "E_POLICY_LOOPBACK"}


@pytest.mark.parametrize(
    "body",
    [
        {"refused": {}},
        {"refused": [[1, "<script>"]]},
        {"refused": [["1", "E_POLICY_DENIED"]]},
        {"refused": [[1, "E_POLICY_DENIED"]] * 501},
    ],
)
def test_nonsense_changes_nothing(services: Services, two: tuple[int, list[int]], body: dict[str, Any]) -> None:
    """What ends up on pages is read strictly."""
    agent_no, (a, _) = two
    services.refusals.acknowledged(agent_no, {"ok": True, "refused": [[a, "E_POLICY_DENIED"]]})

    with pytest.raises(WireError):
        services.refusals.acknowledged(agent_no, body)
    assert codes(services, agent_no) == {"a": "E_POLICY_DENIED"}


@pytest.mark.parametrize(("said", "counted"), [(12_000, 12_000), (0, 1), (-1, 1), (10**9, 1), ("x", 1), (True, 1)])
def test_the_count_may_be_more_than_the_list(
    services: Services, two: tuple[int, list[int]], said: object, counted: int
) -> None:
    """But not less, and not more than there can be targets."""
    agent_no, (a, _) = two
    services.refusals.acknowledged(agent_no, {"ok": True, "refused": [[a, "E_POLICY_DENIED"]], "refused_count": said})

    assert services.refusals.count(agent_no) == counted


def test_refusals_survive_a_restart(
    services: Services, two: tuple[int, list[int]], clock: FakeClock, approve: Callable[..., Any]
) -> None:
    """A page that is loaded after the restart knows before the agent is back."""
    agent_no, (a, _) = two
    services.refusals.acknowledged(agent_no, {"ok": True, "refused": [[a, "E_POLICY_DENIED"]]})
    again = open_services(services.config, clock)

    assert codes(again, agent_no) == {"a": "E_POLICY_DENIED"}
    again.close()
