"""Fault 8: the server is away for a day."""

from __future__ import annotations

from .fault import Fault, Findings
from .outage import GUARDS, Outage
from .world import Run

GROWTH_MIB = 10.0


def run(run: Run) -> Findings:
    """The newest half hour comes back, and no agent has grown."""
    found = Outage(run, 24 * 3600, 4).happen()
    grown = found.figures["ring_mib_per_agent"]
    found.require(grown <= GROWTH_MIB, f"an agent grew by {grown:.1f} MiB, {GROWTH_MIB:g} are allowed")
    return found


FAULT = Fault(
    number=8,
    title="24-hour outage",
    inject="as 6, with 24 hours and 4 agents",
    passes="exactly the newest 30 minutes (+- 1 s) return; an agent's memory grows by 10 MiB at most.",
    run=run,
    guards=GUARDS,
)
