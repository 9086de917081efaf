"""Each target in its own way, end to end: asked for on the command line, measured by an agent, shown by the server."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.processes import Server, running_agent, running_server, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with rounds of 1 s, and an approved agent that probes five targets in five ways."""
    home = tmp_path_factory.mktemp("probing")
    with running_server(home / "server", interval_s=1.0) as server:
        server.admin("targets", "add", "plain", "127.0.0.1")
        server.admin("targets", "add", "thrice", "127.0.0.2", "count=3", "size=1200", "dscp=46")
        server.admin("targets", "add", "seldom", "127.0.0.3", "interval_s=3")
        server.admin("targets", "add", "wrong-family", "127.0.0.4", "family=6")
        server.admin("targets", "add", "both", "127.0.0.5", "family=46")
        with running_agent(server, home / "agent", "probe-1") as agent:
            agent.approve()
            wait_for(lambda: len(times(server, "plain")) >= 7, "seven rounds", deadline_s=30, every_s=0.3)
            yield server


def samples(server: Server, target: str) -> list[dict[str, Any]]:
    return list(server.session().json(f"/monitoring/probe-1/{target}")["samples"])


def times(server: Server, target: str) -> Counter[float]:
    return Counter(row["timestamp"] for row in samples(server, target))


def test_three_probes_a_round_are_three_samples(measuring: Server) -> None:
    """All of one moment, all answered, and one cell of the picture."""
    rows = samples(measuring, "thrice")

    assert {row["status"] for row in rows} == {"ok"}
    assert set(times(measuring, "thrice").values()) == {3}
    assert set(times(measuring, "plain").values()) == {1}


def test_a_slower_target_is_measured_in_every_third_round(measuring: Server) -> None:
    """What is asked for every 3 s is left out of the rounds between, which are no losses."""
    plain, seldom = sorted(times(measuring, "plain")), sorted(times(measuring, "seldom"))
    places = [plain.index(at) for at in seldom if at in plain]

    assert {b - a for a, b in itertools.pairwise(places[1:])} <= {3}
    assert {row["status"] for row in samples(measuring, "seldom")} == {"ok"}
    assert len(seldom) < len(plain) / 2


def test_a_family_that_is_not_there_is_an_error_and_the_other_goes_on(measuring: Server) -> None:
    """An IPv4 address asked over IPv6 has nothing to send to; both families are two samples, each with its own fate."""
    assert {row["status"] for row in samples(measuring, "wrong-family")} == {"error"}
    assert Counter(row["status"] for row in samples(measuring, "both")[:2]) == {"ok": 1, "error": 1}


def test_the_picture_has_one_state_for_each(measuring: Server) -> None:
    """Several probes are one cell."""
    picture = measuring.session().json("/api/v1/grid")
    names = [target["name"] for target in picture["targets"]]
    states = dict(zip(names, picture["state"][0], strict=True))

    assert states["plain"] == states["thrice"] == states["both"] == "ok"
    assert states["seldom"] == "ok"
    assert states["wrong-family"] == "error"
    assert [t["probe"] for t in picture["targets"] if t["name"] == "thrice"] == [{"count": 3, "size": 1200, "dscp": 46}]
