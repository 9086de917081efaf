"""Fault 22: the clocks of agents step, while they are connected and while they are not."""

from __future__ import annotations

import time

from .agents import SimAgent
from .fault import Fault, Findings
from .guards import plan
from .oracle import read_logs
from .world import Run, World

HOUR_S, DAY_S = 3600.0, 86_400.0
STEPS_S = (HOUR_S, -HOUR_S, DAY_S, 0.0)  # agent by agent


def run(run: Run) -> Findings:
    """Right, wrong while connected, wrong without a server, right again without one."""
    found = Findings()
    SimAgent.by_wall_clock = run.without == "boot-time"
    with World(run, plan=plan(run)) as world:
        world.start()
        _through_all(world)
        world.fleet.drain()
        world.stop_server()
        verdict = world.verdict(restamped=frozenset(world.names))
        ahead = _measured_ahead(world)
        found.close(verdict)
    found.figures |= {"restamped": verdict.restamped, "measured_ahead": ahead}
    found.require(verdict.restamped == ahead, f"{verdict.restamped} samples have the server's time, {ahead} should")
    return found


def _through_all(world: World) -> None:
    _step(world, STEPS_S)
    time.sleep(3.0)
    world.kill_server()
    time.sleep(2.0)
    _step(world, (0.0,))
    time.sleep(2.0)
    _step(world, STEPS_S[::-1])
    time.sleep(2.0)
    world.start_server()
    world.fleet.wait_back()
    time.sleep(1.0)
    _step(world, (0.0,))
    time.sleep(2.0)


def _step(world: World, steps_s: tuple[float, ...]) -> None:
    for number, agent in enumerate(world.fleet.agents):
        agent.step_s = steps_s[number % len(steps_s)]
    world.journal.note(f"clocks are off by {steps_s} s")


def _measured_ahead(world: World) -> int:
    """Samples that were measured under a time that has not come yet: the server must not believe it."""
    now = time.time() * 1000
    return sum(len(values) // 4 for at_ms, values in read_logs(world.run.home).created.values() if at_ms > now)


FAULT = Fault(
    number=22,
    title="clock step, agent",
    inject="+1 h, -1 h and +1 d at three quarters of the agents, while connected, while the server is killed, and back",
    passes="nothing lost, doubled or changed; rows of clocks that are ahead, and only they, carry the server's time "
    "and say so; the ring goes by boot time.",
    run=run,
    waits=True,
    guards={
        "boot-time": "the ring goes by the wall clock",
        "known-cursors": "a server that starts forgets its cursors",
    },
    short="the measured time of such a row is replaced, not kept with the offset beside it; that a step changes no RTT "
    "is the engine's, and tested there.",
)
