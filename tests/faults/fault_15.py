"""Fault 15: what the server says reaches nobody any more, while it hears everything."""

from __future__ import annotations

import time

from .fault import Fault, Findings
from .guards import TIMEOUTS, plan, weaken
from .proxy import Proxy
from .world import Run, World

NOTICED_S = 45.0


def run(run: Run) -> Findings:
    """All lines turn blind towards the agents, new ones too; then the new ones see again."""
    found = Findings()
    with World(run, plan=plan(run)) as world:
        weaken(run, world.fleet.agents)
        proxy = Proxy(world.server.port, run.rng)
        world.start(proxy.port)
        for line in proxy.lines:
            line.blind_to_agent = True
        proxy.on_open = lambda line: setattr(line, "blind_to_agent", True)
        run.journal.note("blind")
        began, lasted = time.monotonic(), run.scale(60, 30)
        while any(a.connected for a in world.fleet.agents) and time.monotonic() - began < 2 * NOTICED_S:
            time.sleep(0.05)
        noticed = time.monotonic() - began
        time.sleep(max(0.0, began + lasted - time.monotonic()))
        proxy.on_open = lambda _line: None
        run.journal.note("seeing again")
        back = world.fleet.wait_back(60.0)
        world.fleet.drain()
        world.stop_server()
        proxy.close()
        found.close(world.verdict())
    found.figures |= {"blind_s": max(noticed, lasted), "noticed_s": noticed, "back_s": back}
    found.require(noticed <= NOTICED_S, f"the last agent noticed after {noticed:.0f} s, {NOTICED_S:g} are allowed")
    return found


FAULT = Fault(
    number=15,
    title="one-way blackhole",
    inject="a proxy swallows what the server sends, on lines that are open and on new ones, for a minute",
    passes="every agent notices within 45 s and comes back after: nothing lost, doubled, changed.",
    run=run,
    waits=True,
    guards=TIMEOUTS,
)
