"""Fault 16: a line that comes and goes, slow and lossy while it is there."""

from __future__ import annotations

import time

from .fault import Fault, Findings
from .guards import UNTIL_ACKED, plan, weaken
from .proxy import Proxy, Weather
from .world import Run, World

FINE = Weather(up=True, delay_s=0.3, loss=0.05)
CPU_SHARE = 0.05


def run(run: Run) -> Findings:
    """Up, down, up: every other time the lines are cut while down, else they only stand still."""
    found, phases = Findings(), run.scale(8, 2)
    with World(run, plan=plan(run)) as world:
        weaken(run, world.fleet.agents)
        proxy = Proxy(world.server.port, run.rng)
        world.start(proxy.port)
        share = _flap(world, proxy, phases)
        back = world.fleet.wait_back(90.0)
        world.fleet.drain()
        world.stop_server()
        proxy.close()
        found.close(world.verdict())
    per_agent = (len(proxy.lines) / len(world.fleet.agents) - 1) / phases
    found.figures |= {"phases": phases, "connections_per_phase": per_agent, "back_s": back, "cpu_share": share}
    found.require(share <= CPU_SHARE, f"an agent and its part of the proxy took {share:.1%} of a processor")
    return found


def _flap(world: World, proxy: Proxy, phases: int) -> float:
    """The share of a processor that each agent took meanwhile."""
    began, used = time.monotonic(), time.process_time()
    for number in range(phases):
        proxy.weather = FINE
        world.journal.note("up")
        time.sleep(10.0)
        proxy.weather = Weather(up=False)
        world.journal.note("down")
        if number % 2 == 0:
            proxy.cut()
        time.sleep(5.0)
    proxy.weather = Weather()
    return (time.process_time() - used) / (time.monotonic() - began) / len(world.fleet.agents)


FAULT = Fault(
    number=16,
    title="flapping link",
    inject="a proxy is up for 10 s with 300 ms of delay each way, every twentieth piece three times as late, and down "
    "for 5 s; every other time the lines are cut; 2 minutes",
    passes="nothing lost, doubled, changed; an agent and its part of the proxy take less than 5 % of a processor.",
    run=run,
    waits=True,
    guards=UNTIL_ACKED,
    short="pieces are late, not out of order: below TLS there is TCP, and this needs no rights to shape traffic. "
    "Agents come back in a tenth of the time here, so connections per phase are a figure and no limit.",
)
