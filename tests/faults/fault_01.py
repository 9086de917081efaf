"""Fault 1: the server is killed, again and again, at moments that nobody chose."""

from __future__ import annotations

import time

from .fault import Fault, Findings
from .guards import UNTIL_ACKED, plan, weaken
from .world import Run, World

LISTENING_S, BACK_S = 5.0, 60.0


def run(run: Run) -> Findings:
    """Kill, wait, start, wait; then let everything arrive."""
    found, kills = Findings(), run.scale(20, 2)
    early, ready, back = 0, 0.0, 0.0
    with World(run, plan=plan(run)) as world:
        weaken(run, world.fleet.agents)
        world.start(settle_s=1.0)
        for _ in range(kills):
            time.sleep(run.rng.uniform(0.2, 2.0))
            early += world.kill_server()
            time.sleep(run.rng.uniform(0.0, run.scale(3, 1)))
            ready = max(ready, world.start_server())
            back = max(back, world.fleet.wait_back(BACK_S))
        drained = world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
    found.figures |= {
        "kills": kills,
        "acked_early": early,
        "ready_max_s": ready,
        "back_max_s": back,
        "drain_s": drained,
    }
    found.require(early == 0, f"{early} rounds were acknowledged before they were committed")
    found.require(ready <= LISTENING_S, f"the server took {ready:.1f} s to listen, {LISTENING_S:g} are allowed")
    return found


FAULT = Fault(
    number=1,
    title="server kill -9",
    inject="SIGKILL at random moments under load, started again after 0 to 3 s; 20 times",
    passes="nothing lost, doubled, changed or acknowledged early; listening again within 5 s, "
    "all agents back within 60 s.",
    run=run,
    guards={"commit-first": "the server acknowledges one commit ahead", **UNTIL_ACKED},
)
