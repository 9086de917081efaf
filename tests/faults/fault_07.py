"""Fault 7: the server is away for 31 minutes, a little more than the agents' rings hold."""

from __future__ import annotations

from .fault import Fault, Findings
from .outage import GUARDS, Outage
from .world import TARGETS, Run

EXPIRED = "ring_expired"
SLOTS = 1.0  # the ledger counts slots of a second, in which a round may just miss its place


class Told(Outage):
    """An outage after which the ledger is asked what became of it."""

    def ask(self) -> None:
        """Of every agent: the longest gap, and how many rounds are missing as the ring had expired."""
        session = self.world.server.session()
        answers = [session.json(f"/api/v1/agents/{name}/completeness") for name in self.world.names]
        longest = [max(answer["gaps"], key=lambda gap: gap["rounds"])["reason"] for answer in answers]
        told = sum(answer["reasons"][EXPIRED] for answer in answers)
        self.found.figures["ledger_expired_rounds"] = told
        self.found.require(set(longest) == {EXPIRED}, f"the ledger gives as reasons {sorted(set(longest))}")


def run(run: Run) -> Findings:
    """The oldest minute is gone, and nothing else."""
    outage = Told(run, 31 * 60, run.scale(20, 4))
    found = outage.happen()
    assert found.verdict is not None
    found.require(found.verdict.allowed > 0, "nothing expired, though the outage was too long")
    off = abs(found.figures["ledger_expired_rounds"] - found.verdict.allowed / TARGETS) / len(outage.world.names)
    found.require(off <= SLOTS, f"the ledger is off by {off:.1f} rounds for each agent, {SLOTS:g} are allowed")
    return found


FAULT = Fault(
    number=7,
    title="31-minute outage",
    inject="as 6, with 31 minutes",
    passes="exactly the rounds older than 30 minutes (+- 1 s) at the first report are gone; the ledger has them as one "
    "gap of each agent, with the reason `ring_expired`, as many rounds (+- 1).",
    run=run,
    guards=GUARDS,
)
