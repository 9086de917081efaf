"""An engine for tests: answers by a script, at once, and remembers what it was asked."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from pingmon_agent.plan import Plan, Probed, Tally


class FakeEngine:
    """Fits plan.Engine. `answer(plan)` gives the samples; 1 ms for each target by default."""

    def __init__(self, answer: Callable[[Plan], list[int]] | None = None) -> None:
        self.tally = Tally()
        self.plans: list[Plan] = []
        self._answer = answer or (lambda plan: [1000] * len(plan.addresses))

    def run_round(self, plan: Plan) -> Probed:
        """See Engine."""
        self.plans.append(plan)
        return Probed(samples=array("i", self._answer(plan)), started_ms=len(self.plans), disturbed=False)
