"""Approval of a whole fleet at once, before its first contact: what an administrator's tool says of each agent holds.

All that changes is decided in few transactions, whatever the number of agents: a change of targets concerns every
agent, and one by one a fleet of a thousand would write a million target sets. Must not know: sockets, Flask, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pingmon.store.directory import Transaction
from pingmon.store.models import Agent
from pingmon_agent.wire.contract import State

from . import addresses
from . import targets as rules
from .approval import MOVED, enter
from .errors import Conflict, Refused
from .preapproval import PreApprovals, Vouched, check
from .views import AgentView

# Agents in one transaction: it keeps a server from changing anything for a second or two.
PORTION = 500
FULL = "{} is left out, too: {}"


@dataclass(frozen=True)
class Order:
    """What is said of one agent; None where nothing is said and what holds stays."""

    hostname: str
    ip_address: str
    public_key: str
    allowed: tuple[str, ...] | None = None
    observed_ignored: bool | None = None
    replace: bool = False


@dataclass
class Outcome:
    """What became of an order: the agent as it is now and whether that is new, or why it was refused."""

    hostname: str
    view: AgentView | None = None
    changed: bool = False
    error: str | None = None


@dataclass
class _Step:
    """An order beside what is known: `settled` is the agent that has this key and measures already."""

    ask: Vouched
    outcome: Outcome
    known: AgentView | None
    rival: AgentView | None

    @property
    def settled(self) -> AgentView | None:
        return self.known if self.known is not None and self.known.state in rules.MEASURING else None

    @property
    def adds(self) -> bool:
        """Whether one more agent measures afterwards."""
        return self.settled is None and self.rival is None

    @property
    def needed(self) -> bool:
        """Whether anything has to be changed."""
        view, ask = self.settled, self.ask
        if view is None or _frees(view, ask):
            return True
        moves = view.ip_address != ask.ip_address and not _moved(view)
        return moves or (set(view.allowed), view.observed_ignored) != (set(ask.allowed), ask.observed_ignored)


class FleetApprovals(PreApprovals):
    """The same decisions, for many agents."""

    def preapprove_all(self, orders: Sequence[Order], actor: str) -> list[Outcome]:
        """Approve keys before their first contact, in the order given. The same again changes nothing.

        An agent that is approved already gets the addresses that are given, and is released where it was on hold
        for one of them. What is refused is said in its outcome and keeps no other one back.
        """
        self.refresh()
        outcomes = [Outcome(order.hostname) for order in orders]
        steps = self._steps(orders, outcomes)
        needed, full = [step for step in steps if step.needed], None
        for start in range(0, len(needed), PORTION):
            full = self._settle(needed[start : start + PORTION], actor, full)
        for step in steps:
            if step.outcome.error is None:
                step.outcome.view = self.snapshot.agents[self.snapshot.by_key[step.ask.key_fpr]]
        return outcomes

    def _steps(self, orders: Sequence[Order], outcomes: Sequence[Outcome]) -> list[_Step]:
        by_name = {view.hostname: view for view in self.agents() if view.state in rules.MEASURING}
        steps: list[_Step] = []
        seen: set[str] = set()
        for order, outcome in zip(orders, outcomes, strict=True):
            try:
                step = self._step(order, outcome, by_name)
                if not seen.isdisjoint((step.ask.key_fpr, step.ask.hostname)):
                    raise Conflict(f"{order.hostname} or its key stands in the list before; give each agent once")
            except Refused as error:
                outcome.error = error.message
                continue
            seen |= {step.ask.key_fpr, step.ask.hostname}
            steps.append(step)
        return steps

    def _step(self, order: Order, outcome: Outcome, by_name: dict[str, AgentView]) -> _Step:
        ask = Vouched.of(
            order.hostname, order.ip_address, order.public_key, order.allowed or (), bool(order.observed_ignored)
        )
        known = self.snapshot.agents.get(self.snapshot.by_key.get(ask.key_fpr, 0))
        rival = by_name.get(ask.hostname)
        check(ask, known, rival, order.replace)
        step = _Step(ask, outcome, known, rival)
        if step.settled is not None:
            step.ask = _completed(order, ask, step.settled)
        return step

    def _settle(self, steps: list[_Step], actor: str, full: str | None = None) -> str | None:
        """Carry them out, all at once where the limits of [targets] allow it, else as many as fit.

        Returns why no further agent fits: with one that was refused for that, all later ones are.
        """
        if full is not None:
            for step in filter(lambda step: step.adds, steps):
                step.outcome.error = FULL.format(step.ask.hostname, full)
            steps = [step for step in steps if not step.adds]
        refusal = self._carry_out(steps, actor) if steps else None
        if refusal is None:
            return full
        if len(steps) > 1:
            half = len(steps) // 2
            return self._settle(steps[half:], actor, self._settle(steps[:half], actor, full))
        steps[0].outcome.error = refusal
        return refusal if steps[0].adds else full

    def _carry_out(self, steps: Sequence[_Step], actor: str) -> str | None:
        """One transaction for all of them; returns why it was refused."""
        now, done = self._clock.wall_ms(), list[_Step]()
        try:
            with self.change() as tx:
                rows = []
                for step in steps:
                    if (row := self._change_row(tx, step, now)) is not None:
                        rows.append((row, f"key {step.ask.key_fpr}"))
                        done.append(step)
                self._record_all(tx, rows, now, actor, "agents.preapprove")
        except Conflict as error:
            return error.message
        for step in done:
            step.outcome.changed = True
        return None

    def _change_row(self, tx: Transaction, step: _Step, now_ms: int) -> Agent | None:
        settled, ask = step.settled, step.ask
        try:
            row = self._row(tx, settled.no) if settled else self._place(tx, ask, step.known, step.rival)
        except Refused as error:  # somebody deleted it in this very moment
            step.outcome.error = error.message
            return None
        if settled is None:
            self._vouch(tx, row, ask, now_ms)
            return row
        row.allowed, row.observed_ignored = addresses.pack(ask.allowed), ask.observed_ignored
        row.revision += 1
        if _frees(settled, ask):
            enter(tx, row, State.APPROVED, None, now_ms)
        elif _moved(settled):
            return row  # where it really is stays on record: it is what the hold is about
        if row.observed_ip == row.ip_address:
            row.observed_ip = ask.ip_address
        row.ip_address = ask.ip_address
        return row


def _completed(order: Order, ask: Vouched, view: AgentView) -> Vouched:
    """What was not said stays as it is; an address that was exchanged is exchanged among the allowed ones, too."""
    ignored = view.observed_ignored if order.observed_ignored is None else order.observed_ignored
    if order.allowed is not None:
        return replace(ask, observed_ignored=ignored)
    before = view.previous_ip if _moved(view) else view.ip_address
    kept = [ask.ip_address if entry == before else entry for entry in view.allowed]
    if not addresses.inside(ask.ip_address, kept):
        kept.append(ask.ip_address)
    return replace(ask, allowed=tuple(addresses.check_entries(kept)), observed_ignored=ignored)


def _moved(view: AgentView) -> bool:
    """Whether it is on hold for its address."""
    return view.state is State.HOLD and view.hold_reason == MOVED


def _frees(view: AgentView, ask: Vouched) -> bool:
    """Whether an agent that is on hold for its address may come from where it is, going by what is said now."""
    here = [view.ip_address] if ask.observed_ignored else [view.ip_address, view.observed_ip]
    return _moved(view) and all(addresses.inside(address, ask.allowed) for address in here)
