"""Simulated agents in a process of their own, which can be killed: `python -m tests.faults.apart PLAN.json`.

Their rings are on files, a directory each. They measure ten times a second until a line comes on standard input; then
they measure no more, deliver what is left, say how many agents have delivered everything, and end.
"""

from __future__ import annotations

import functools
import json
import random
import sys
from pathlib import Path
from typing import Any

from pingmon_agent.config import Server as Address
from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring

from .agents import HURRY, Fleet, SimAgent, Timeline
from .journal import Journal as Events

RING_BYTES = 4 << 20
EVERY_S = 0.1  # a life is short


def ring_in(directory: Path) -> functools.partial[Ring]:
    """Makes a ring that keeps its rounds in `directory`, as an agent's does."""
    directory.mkdir(parents=True, exist_ok=True)
    return functools.partial(Ring, journal=Journal(directory, RING_BYTES))


def main(plan_file: str) -> None:
    """Connect, say so, measure, deliver, end."""
    plan: dict[str, Any] = json.loads(Path(plan_file).read_text())
    home, timeline = Path(plan["home"]), Timeline()
    made = []
    for name in plan["names"]:
        ring = Ring if plan["in_memory"] else ring_in(home / "rings" / name)
        made.append(SimAgent(name, timeline, home, plan["pin"], ring))
    fleet = Fleet(made, timeline, Events())
    fleet.every_s = EVERY_S
    fleet.start(Address(**plan["address"]), random.SystemRandom().randrange(2**32), HURRY)
    fleet.wait_back()
    print("back", flush=True)
    sys.stdin.readline()
    fleet.drain()
    print("delivered", sum(agent.delivered for agent in made), flush=True)
    fleet.stop()


if __name__ == "__main__":
    main(sys.argv[1])
