"""Fault 12: the disk with the agents' rings is full, and has room again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring
from tests.support.processes import wait_for

from .apart import RING_BYTES
from .fault import Fault, Findings
from .fault_11 import fill, small_disk
from .world import Run, World

journals: list[Journal] = []  # of this run's agents
TOLD_S, WELL_S, LIVE_S = 30.0, 30.0, 5.0


def run(run: Run) -> Findings:
    """Rings on a small disk, and trouble long enough for the server to be killed in it."""
    found, disk = Findings(), run.home / "rings"
    with small_disk(disk), World(run, ring_of=partial(_ring_on, disk)) as world:
        for agent in world.fleet.agents if run.without == "from-memory" else ():
            agent.delivery.silenced = lambda: not all(j.healthy for j in journals)
        world.start()
        ballast = fill(disk)
        run.journal.note("the disk of the rings is full")
        _suffer(world, found)
        ballast.unlink()
        mended = time.monotonic()
        wait_for(lambda: all(j.healthy for j in journals), "every ring to be on files again", deadline_s=WELL_S)
        found.figures["well_s"] = time.monotonic() - mended
        world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
    return found


def _ring_on(disk: Path, name: str) -> Callable[..., Ring]:
    (disk / name).mkdir()
    journals.append(Journal(disk / name, RING_BYTES))
    return partial(Ring, journal=journals[-1])


def _suffer(world: World, found: Findings) -> None:
    """Until every ring says so; then on without a server for a moment, and with one."""
    agents, began = world.fleet.agents, time.monotonic()
    wait_for(lambda: not any(j.healthy for j in journals), "every ring to tell", deadline_s=2 * TOLD_S)
    told = time.monotonic() - began
    world.kill_server()
    time.sleep(2.0)
    world.start_server()
    world.fleet.wait_back()
    since = time.monotonic()
    time.sleep(LIVE_S)
    live = len({agent.name for agent in agents if any(at > since for at, _ in list(agent.delivery.waits))})
    found.figures |= {"told_s": told, "live_agents": live}
    found.require(told <= TOLD_S, f"the last ring told of it after {told:.0f} s, {TOLD_S:g} are allowed")
    found.require(live == len(agents), f"only {live} agents reported while their disk was full")


FAULT = Fault(
    number=12,
    title="disk full (agent)",
    inject="the rings lie on a file system of 24 MiB, which a file fills; the server is killed meanwhile",
    passes="every ring tells within 30 s, every agent goes on reporting from memory and is on files again within 30 s: "
    "nothing lost, doubled, changed.",
    run=run,
    guards={"from-memory": "an agent whose ring is not on files reports nothing"},
    root=True,
    waits=True,
    short="a disk that turns read-only is not part of it: no file system in memory does so under open files.",
)
