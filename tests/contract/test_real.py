"""Everything real: `pingmon serve` and `pingmon-agent run` as processes, TLS between them, ICMP on loopback.

Each test leaves server and agent running and approved, so that the next one finds a normal day.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.conftest import MODES
from tests.support.processes import Agent, Server, running_agent, running_server, wait_for

pytestmark = pytest.mark.e2e
INTERVAL_S = 1.0
HOST = "probe-1"
TARGETS = (("four", "127.0.0.1"), ("six", "::1"), ("lost", "no-such-host.invalid"))
# The other modes share everything but the server's engine room with the default one.
OUTAGE_S = {"eventlet": 15.0, "gevent": 3.0, "threading": 3.0}


@dataclass
class World:
    """A server in one async mode and an approved agent that measures three targets."""

    server: Server
    agent: Agent
    agent_started: float = 0.0

    def samples(self, target: str) -> list[dict[str, Any]]:
        return list(self.server.session().json(f"/monitoring/{HOST}/{target}")["samples"])

    def account(self, begin: float, end: float) -> dict[str, Any]:
        path = f"/api/v1/agents/{HOST}/completeness?from={begin}&to={end}"
        return dict(self.server.session().json(path))

    def times(self, since: float = 0.0) -> list[float]:
        return [row["timestamp"] for row in self.samples("four") if row["timestamp"] >= since]

    def last_round(self) -> float:
        return max(self.times(), default=0.0)

    def start_agent(self) -> None:
        self.agent_started = time.time()
        self.agent.start()

    def wait_for_round_after(self, moment: float, deadline_s: float = 20.0) -> None:
        wait_for(lambda: self.last_round() > moment, "a committed round", deadline_s=deadline_s, every_s=0.2)


@pytest.fixture(scope="module", params=MODES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A normal day: started, approved, measuring."""
    home = tmp_path_factory.mktemp(request.param)
    with running_server(home / "server", mode=request.param, interval_s=INTERVAL_S) as server:
        for name, address in TARGETS:
            server.admin("targets", "add", name, address)
        server.session()
        began = time.time()
        with running_agent(server, home / "agent", HOST) as agent:
            agent.approve()
            world = World(server, agent, began)
            world.wait_for_round_after(began)
            yield world


def assert_whole(times: list[float]) -> None:
    """No round twice and none missing between two others; a round may be late where this machine is busy."""
    assert len(times) == len(set(times)), "a round is there twice"
    holes = [(a, b - a) for a, b in itertools.pairwise(times) if b - a > 1.9 * INTERVAL_S]
    assert not holes, f"holes (from, seconds): {holes}"


def assert_all_arrived(world: World) -> None:
    """Stop the agent, compare the rounds it says it made with those the server has, start it again."""
    assert world.agent.stop() == 0
    assert world.agent.child is not None
    end = re.search(r"agent stopped rounds=(\d+) undelivered=(\d+)", world.agent.child.last_lines(3))
    assert end is not None
    made, kept, there = int(end[1]), int(end[2]) // len(TARGETS), len(world.times(since=world.agent_started))
    print(f"{world.server.mode}: {made} rounds made, {kept} kept, {there} stored")
    assert there == made - kept
    assert kept <= 1
    world.start_agent()
    world.wait_for_round_after(world.agent_started)


def test_an_approved_agent_is_seen_within_ten_seconds(world: World) -> None:
    """From the start of an agent that was approved before to its first round in /api/v1/grid: under 10 s."""
    assert world.agent.stop() == 0
    began = time.monotonic()
    world.start_agent()
    session = world.server.session()

    def seen() -> bool:
        picture = session.json("/api/v1/grid")
        fresh = picture["agents"][0]["last_round"] > world.agent_started
        return bool(fresh and picture["rtt_ms"][0][0] is not None)

    wait_for(seen, "the agent's first round in the grid", deadline_s=10)
    seconds = time.monotonic() - began
    print(f"\n{world.server.mode}: agent start to first committed round in the grid: {seconds:.2f} s")
    assert seconds < 10


def test_both_families_are_measured_and_a_lost_name_stands_alone(world: World) -> None:
    """127.0.0.1 and ::1 have true RTTs in each round; a name that does not resolve is `error` and holds up nobody."""
    world.wait_for_round_after(world.agent_started + 2 * INTERVAL_S)
    four, six, lost = (world.samples(name)[-2:] for name, _ in TARGETS)
    assert [row["status"] for row in four + six] == ["ok"] * 4
    assert all(0 < row["rtt_ms"] < 50 for row in four + six)
    assert [(row["status"], row["rtt_ms"]) for row in lost] == [("error", None)] * 2
    assert [row["timestamp"] for row in four] == [row["timestamp"] for row in lost]
    picture = world.server.session().json("/api/v1/grid")
    assert picture["state"][0] == ["ok", "ok", "error"]


def test_a_graceful_stop_is_quick_and_loses_nothing(world: World) -> None:
    """SIGTERM ends the server with 0 within five seconds; every round the agent ever made is there, once."""
    began = time.monotonic()
    stopped = time.time()
    code = world.server.stop()
    seconds = time.monotonic() - began
    world.server.start()
    world.wait_for_round_after(time.time(), deadline_s=30)
    assert code == 0
    assert seconds < 5
    assert_whole(world.times(since=max(world.agent_started, stopped - 5)))

    print(f"\n{world.server.mode}: SIGTERM to exit {seconds:.2f} s")
    assert_all_arrived(world)


def test_an_outage_of_the_server_loses_nothing(world: World) -> None:
    """Killed with a report unanswered, away for a while, back: every round of the outage arrives, none twice."""
    assert world.server.child is not None
    killed = time.time()
    # Frozen first, so that the agent has a report on the way that nobody will ever answer.
    world.server.child.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * INTERVAL_S)
    world.server.child.process.kill()
    world.server.child.process.wait()
    time.sleep(OUTAGE_S[world.server.mode])
    world.server.start()
    back = time.time()
    world.wait_for_round_after(back, deadline_s=70)  # longest pause of a patient agent: 60 s
    times = world.times(since=killed - 2)
    print(f"\n{world.server.mode}: {sum(killed < t < back for t in times)} rounds of a {back - killed:.1f} s outage, "
          f"complete {time.time() - back:.1f} s after the server was back")  # fmt: skip
    assert sum(killed < t < back for t in times) >= int(back - killed) - 1
    assert_whole(times)
    account = world.account(killed - 2, back)
    assert account["missing"] <= 1, account["gaps"]  # a round may be late where this machine is busy
    assert account["late"] >= back - killed - 6
    assert_all_arrived(world)


def test_the_account_says_who_was_away(world: World) -> None:
    """Was it down, or did we not look? The server was there, and the agent was not: its rounds are missing for that."""
    assert world.agent.stop() == 0
    gone = time.time()
    time.sleep(6 * INTERVAL_S)
    back = time.time()
    world.start_agent()
    world.wait_for_round_after(back)
    time.sleep(4 * INTERVAL_S)  # what is younger is not missed yet

    account = world.account(gone - 1, back + 1)

    reasons = {reason: rounds for reason, rounds in account["reasons"].items() if rounds}
    assert reasons.keys() == {"agent_down"}
    assert 4 <= reasons["agent_down"] <= back - gone + 2
    assert account["gaps"][-1]["text"] == "nothing was heard from the agent"
    line = json.loads(world.server.admin("agents", "show", HOST))["completeness"]
    assert line.startswith("rounds of the last 24 h: ")
    assert "agent down" in line
