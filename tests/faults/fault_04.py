"""Fault 4: agents are killed, again and again, with their rings on files in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from pingmon.cli.children import die_with
from tests.support.processes import clean_environment

from .fault import Fault, Findings
from .world import Run, World

RUNNING_S = 3.0


def run(run: Run) -> Findings:
    """Kill all agents at once, start them anew, in the end let them deliver."""
    found, kills = Findings(), run.scale(50, 2)
    slowest = 0.0
    with World(run) as world:
        plan = _plan(run, world)
        world.start_server()
        for number in range(kills):
            child, took = _start(plan)
            slowest = max(slowest, took)
            time.sleep(run.rng.uniform(0.2, 2.0))
            child.kill()
            child.communicate()
            run.journal.note(f"agents killed, {number + 1} times now; they were back after {took:.2f} s")
        child, _ = _start(plan)
        said, _ = child.communicate("deliver\n", timeout=120)
        run.journal.note(f"agents said {said!r}")
        agents = world.server.admin("agents", "list", "--output", "csv").count("agent-")
        world.stop_server()
        found.close(world.verdict())
    found.figures |= {"kills": kills, "running_max_s": slowest, "agents": agents}
    found.require(slowest <= RUNNING_S, f"agents were back after {slowest:.1f} s, {RUNNING_S:g} are allowed")
    found.require(agents == len(world.names), f"{len(world.names)} agents have become {agents}")
    return found


def _plan(run: Run, world: World) -> Path:
    for agent in world.fleet.agents:
        agent.log.close()  # another process writes it
    world.fleet.agents.clear()
    address = dataclasses.asdict(world.address())
    facts = {"home": str(run.home), "names": world.names, "pin": world.pin, "address": address}
    file = run.home / "apart.json"
    file.write_text(json.dumps(facts | {"in_memory": run.without == "on-files"}))
    return file


def _start(plan: Path) -> tuple[subprocess.Popen[str], float]:
    """A process of agents, and how long it took until all were approved."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.faults.apart", str(plan)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
        preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - no other thread of this fault takes a lock
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "back\n", "the agents did not come back"
    return child, time.monotonic() - began


FAULT = Fault(
    number=4,
    title="agent kill -9",
    inject="SIGKILL to a process with all 20 agents at random moments, started again at once, 50 times; rings on "
    "files, ten rounds a second",
    passes="all are back within 3 s under the names they had: nothing lost, doubled, changed.",
    run=run,
    waits=True,
    guards={"on-files": "rings are in memory only"},
)
