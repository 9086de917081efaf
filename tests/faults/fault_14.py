"""Fault 14: a disk so slow that each commit takes half a second more."""

from __future__ import annotations

import time

from tests.bench.facts import percentile

from .fault import Fault, Findings
from .world import Run, World

DELAY_S, ACK_P99_S, GROWTH_MIB, NEVER_S = 0.5, 2.0, 50.0, 999.0


def run(run: Run) -> Findings:
    """Load as ever; then killed in the middle of it and left to recover, as slow as before."""
    found = Findings()
    store = "single" if run.without == "group-commit" else "slow"
    with World(run, plan={"store": store, "delay_s": DELAY_S}) as world:
        world.start()
        before, since = world.server.memory_mib(), time.monotonic()
        time.sleep(run.scale(30, 8))
        waits, grown = world.fleet.waits(since), world.server.memory_mib() - before
        told = sum(agent.delivery.told_to_wait for agent in world.fleet.agents)
        early = world.kill_server()
        world.start_server()
        world.fleet.wait_back()
        world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
    found.figures |= {"told_to_wait": told, "acked_early": early}
    _judge(found, waits, grown)
    found.require(early == 0, f"{early} rounds were acknowledged before they were committed")
    return found


def _judge(found: Findings, waits: list[float], grown: float) -> None:
    p99 = percentile(waits or [NEVER_S], 0.99)
    found.require(min(waits, default=NEVER_S) >= DELAY_S, "an acknowledgement came sooner than a commit can take")
    found.figures |= {"ack_p99_s": p99, "acks": len(waits), "grown_mib": grown}
    found.require(p99 <= ACK_P99_S, f"of 100 acknowledgements one takes {p99:.2f} s, {ACK_P99_S:g} are allowed")
    found.require(grown <= GROWTH_MIB, f"the server grew by {grown:.0f} MiB, {GROWTH_MIB:g} are allowed")


FAULT = Fault(
    number=14,
    title="slow storage",
    inject="every commit takes 0.5 s more; after 30 s of that the server is killed and started again",
    passes="99 of 100 acknowledgements within 2 s, the server grows by 50 MiB at most: nothing lost, doubled, changed "
    "or acknowledged early.",
    run=run,
    guards={"group-commit": "the reports of each agent take a commit of their own"},
    short="at this load a commit takes in all that waits, so no agent is ever told to wait.",
)
