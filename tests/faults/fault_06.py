"""Fault 6: the server is away for 29 minutes, which the agents' rings can hold."""

from __future__ import annotations

from .fault import Fault, Findings
from .outage import DRAINED_S, GUARDS, Outage
from .world import Run


def run(run: Run) -> Findings:
    """Everything comes back."""
    return Outage(run, 29 * 60, run.scale(20, 4)).happen()


FAULT = Fault(
    number=6,
    title="29-minute outage",
    inject="server stopped; 29 minutes pass by the injected clocks of agents and server, with a round every second",
    passes=f"all of it comes with its own timestamps, within {DRAINED_S:g} s; a live round lags at most 5 s after.",
    run=run,
    guards={"half-an-hour": GUARDS["half-an-hour"]},
    short="the run in real time is nightly work and not part of this command.",
)
