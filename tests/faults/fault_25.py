"""Fault 25: the server is stopped gracefully and started again, fifty times."""

from __future__ import annotations

import time

from .fault import Fault, Findings
from .guards import plan
from .world import Run, World

EXIT_S = 5.0


def run(run: Run) -> Findings:
    """Stop, start, stop, start, without waiting for anybody to be back."""
    found, restarts = Findings(), run.scale(50, 3)
    slowest, codes = 0.0, set[int]()
    with World(run, plan=plan(run)) as world:
        world.start(settle_s=1.0)
        for _ in range(restarts):
            time.sleep(run.rng.uniform(0.0, 1.5))
            began = time.monotonic()
            codes.add(world.stop_server())
            slowest = max(slowest, time.monotonic() - began)
            world.start_server()
        back = world.fleet.wait_back()
        world.fleet.drain()
        codes.add(world.stop_server())
        found.close(world.verdict())
    found.figures |= {"restarts": restarts, "exit_max_s": slowest, "back_s": back}
    found.require(codes == {0}, f"the server ended with {sorted(codes)}, not 0")
    found.require(slowest <= EXIT_S, f"a stop took {slowest:.1f} s, {EXIT_S:g} are allowed")
    return found


FAULT = Fault(
    number=25,
    title="graceful stop and restart",
    inject="SIGTERM and start under load, 50 times",
    passes="nothing lost, doubled, changed; exit within 5 s with code 0; all agents back after the last.",
    run=run,
    guards={"commit-first": "the server acknowledges one commit ahead"},
    short="agents are not told `E_SHUTTING_DOWN` with a delay of their own: the contract has no such message yet.",
)
