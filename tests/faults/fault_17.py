"""Fault 17: a line that looks open at both ends and carries nothing, while its agent comes back on another."""

from __future__ import annotations

import time

from tests.support.processes import wait_for

from .fault import Fault, Findings
from .guards import TIMEOUTS, UNTIL_ACKED, plan, weaken
from .proxy import Line, Proxy, Weather
from .world import Run, World

OLD_S, SILENT_S, BACK_S = 10.0, 35.0, 60.0  # the server gives a silent line up after 10 s and 20 s
IN_FLIGHT_S = 1.5  # after so long each agent has a report under way
CLIENTS = 'pingmon_server_websocket_clients{kind="agent"}'


def run(run: Run) -> Findings:
    """Every line dies without a word to the server; all agents are back at once; when does the old line go?"""
    found = Findings()
    with World(run, plan=plan(run)) as world:
        weaken(run, world.fleet.agents)
        proxy = Proxy(world.server.port, run.rng)
        world.start(proxy.port)
        old = list(proxy.lines)
        proxy.weather = Weather(up=False)
        time.sleep(IN_FLIGHT_S)
        for line in old:
            line.half_open()
        proxy.weather = Weather()
        run.journal.note("half open")
        _watch(world, proxy, old, found)
        held = (world.server.directory / "server.log").read_text().count("state=hold")
        world.fleet.drain()
        world.stop_server()
        proxy.close()
        found.close(world.verdict())
    found.figures["held"] = held
    found.require(held == 0, f"{held} agents were put on hold")
    return found


def _back(world: World, began: float) -> float:
    world.fleet.wait_back(BACK_S)
    return time.monotonic() - began


def _watch(world: World, proxy: Proxy, old: list[Line], found: Findings) -> None:
    began, agents = time.monotonic(), len(world.fleet.agents)
    wait_for(lambda: len(proxy.lines) >= 2 * agents, "new lines", deadline_s=BACK_S)
    back = _back(world, began)
    wait_for(lambda: world.server.metric(CLIENTS) == agents, "one session per agent", deadline_s=BACK_S)
    sessions = time.monotonic() - began
    wait_for(lambda: all(line.server_left for line in old), "the old lines to go", deadline_s=2 * SILENT_S)
    gone = max(line.server_left or 0.0 for line in old) - began
    found.figures |= {"back_s": back, "one_session_each_s": sessions, "old_socket_gone_s": gone}
    found.require(sessions <= OLD_S, f"an old session was counted for {sessions:.0f} s, {OLD_S:g} are allowed")
    found.require(gone <= SILENT_S, f"an old socket was open for {gone:.0f} s, {SILENT_S:g} are allowed")


FAULT = Fault(
    number=17,
    title="half-open TCP",
    inject="the agents' ends of all lines are cut while a proxy keeps the server's ends open and silent; agents come "
    "back from other ports",
    passes="one session per agent within 10 s, nobody on hold, old sockets closed by the ping timeout (30 s): nothing "
    "lost, doubled, changed.",
    run=run,
    waits=True,
    guards={**UNTIL_ACKED, **TIMEOUTS},
    short="10 s are asked for the old socket too. Its session ends at the new login, its TCP connection with the ping "
    "timeout only.",
)
