"""Fault 7: the server is away for 31 minutes, a little more than the agents' rings hold."""

from __future__ import annotations

from .fault import Fault, Findings
from .outage import GUARDS, Outage
from .world import Run


def run(run: Run) -> Findings:
    """The oldest minute is gone, and nothing else."""
    outage = Outage(run, 31 * 60, run.scale(20, 4))
    found = outage.happen()
    verdict = found.verdict
    found.require(verdict is not None and verdict.allowed > 0, "nothing expired, though the outage was too long")
    return found


FAULT = Fault(
    number=7,
    title="31-minute outage",
    inject="as 6, with 31 minutes",
    passes="exactly the rounds older than 30 minutes (+- 1 s) at the first report are gone, and declared so.",
    run=run,
    guards=GUARDS,
    short="what the ledger says of the gap (`ring_expired`) is tested with the ledger and not read here.",
)
