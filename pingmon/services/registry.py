"""Agents and targets: the one place that decides. Each decision is one transaction with its audit line.

Must not know: sockets, Flask, samples.
"""

from __future__ import annotations

from collections.abc import Iterable

from pingmon.store.directory import Transaction
from pingmon.store.models import Agent
from pingmon_agent.wire.contract import Probe, State

from . import targets as rules
from .errors import Conflict, NotFound
from .mirror import Mirror
from .probes import spell_probe
from .revocations import ADMITTED, DELETED, HELD, REJECTED, Revocation, Revocations
from .views import AgentView, TargetView

STANDARD = Probe()
WANTED = {REJECTED: State.BLACKLISTED, HELD: State.HOLD}
REPLAY = "revocations.log"
REVOKING = {State.BLACKLISTED: REJECTED, State.HOLD: HELD, State.APPROVED: ADMITTED}


class Registry(Mirror):
    """Decisions, on top of the copy in memory that everybody reads."""

    revocations: Revocations | None = None

    # -- decisions about agents --

    def approve(self, ref: str, actor: str) -> AgentView:
        """pending or blacklisted -> approved; nothing happens to an approved one. Raises NotFound, Conflict."""
        view = self._latest(ref)
        if view.state is State.APPROVED:
            return view
        if view.state is State.HOLD:
            raise Conflict(f"{view.hostname} is on hold ({view.hold_reason}); release it instead")
        rival = next((a for a in self.agents() if a.hostname == view.hostname and a.state in rules.MEASURING), None)
        if rival is not None:
            raise Conflict(f"another agent called {view.hostname} is approved already ({rival.id}); "
                           "delete or reject that one first")  # fmt: skip
        return self._decide(view, State.APPROVED, actor, "agents.approve")

    def reject(self, ref: str, actor: str) -> AgentView:
        """Any state -> blacklisted: it may not come back until somebody approves it."""
        return self._decide(self._latest(ref), State.BLACKLISTED, actor, "agents.reject", "operator")

    def hold(self, ref: str, actor: str) -> AgentView:
        """approved -> hold: it keeps measuring, but nothing is taken from it."""
        view = self._latest(ref)
        if view.state is not State.APPROVED:
            raise Conflict(f"{view.hostname} is {view.state}; only an approved agent can be put on hold")
        return self._decide(view, State.HOLD, actor, "agents.hold", "operator")

    def release(self, ref: str, actor: str) -> AgentView:
        """hold -> approved, with the address it has now."""
        view = self._latest(ref)
        if view.state is not State.HOLD:
            raise Conflict(f"{view.hostname} is {view.state}; only an agent on hold can be released")
        return self._decide(view, State.APPROVED, actor, "agents.release")

    def delete(self, ref: str, actor: str) -> AgentView:
        """Forget an agent; with a valid passphrase it may ask again. Its samples stay until they expire."""
        view = self._latest(ref)
        with self.change() as tx:
            row = self._row(tx, view.no)
            row.deleted_ms = self._clock.wall_ms()
            rules.follow_agent(tx, row, False, row.deleted_ms)
            tx.audit(row.deleted_ms, actor, "agents.delete", view.id, view.hostname)
            now = row.deleted_ms
        self._note(view, DELETED, now)
        return view

    def _note(self, view: AgentView, action: str, at_ms: int) -> None:
        if self.revocations is not None:
            self.revocations.note(Revocation(at_ms, view.id, view.hostname, action))

    def replay_revocations(self) -> list[str]:
        """Shut out again who is in, because the database is older than the decision; returns their hostnames."""
        done = []
        for entry in (self.revocations.standing() if self.revocations else {}).values():
            view = next((a for a in self.agents() if a.id == entry.agent_id), None)
            if view is None or entry.action == ADMITTED:
                continue
            if entry.action == DELETED:
                self.delete(view.id, REPLAY)
            elif (view.decided_at_ms or 0) < entry.at_ms and view.state is not WANTED[entry.action]:
                self._decide(view, WANTED[entry.action], REPLAY, f"agents.{entry.action}", "operator")
            else:
                continue
            done.append(view.hostname)
        return done

    def _latest(self, ref: str) -> AgentView:
        """Decide on what is, not on what was a second ago: the command line writes too."""
        self.refresh()
        return self.agent(ref)

    def _decide(self, view: AgentView, state: State, actor: str, action: str, reason: str | None = None) -> AgentView:
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = self._row(tx, view.no)
            row.state, row.hold_reason = state, reason
            row.auth_epoch += 1
            if state is State.APPROVED:
                row.previous_ip = None
            row.decided_ms, row.decided_by = now, actor
            moved = rules.follow_agent(tx, row, self.in_mesh(row), now)
            rules.renew_sets(tx, now, moved)
            tx.audit(now, actor, action, row.uid, row.hostname)
        self._note(view, REVOKING[state], now)
        return self.snapshot.agents[view.no]

    def in_mesh(self, row: Agent) -> bool:
        """Whether the others ping this agent."""
        wanted = self.mesh and row.mesh and not row.legacy and row.state in rules.MEASURING
        return wanted and self.rules.why_not_in_mesh(row.ip_address, row.observed_ip) is None

    @staticmethod
    def _row(tx: Transaction, agent_no: int) -> Agent:
        row = tx.agent(agent_no)
        if row is None:
            raise NotFound("the agent was deleted in the meantime; load the list again")
        return row

    # -- decisions about targets --

    def add_target(self, name: str, address: str, actor: str, probe: Probe = STANDARD) -> TargetView:
        """Raises Invalid, Conflict."""
        wanted = rules.Wanted(name, address, probe).checked(self.rules)
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = rules.add(tx, wanted, now)
            tx.audit(now, actor, "targets.add", wanted.name, f"{wanted.address} {row.probe}")
        return self.snapshot.targets[row.id or 0]

    def change_target(
        self, ref: str, actor: str, name: str | None = None, address: str | None = None, probe: Probe | None = None
    ) -> TargetView:
        """Another name, address or way to probe; id and history stay. Raises NotFound, Invalid, Conflict.

        An agent's own target takes another way to probe, but keeps its name and address.
        """
        view = self.target(ref) if (name, address) == (None, None) else self._own_target(ref)
        before = rules.Wanted(view.name, view.address, view.probe)
        wanted = rules.Wanted(
            view.name if name is None else name,
            view.address if address is None else address,
            view.probe if probe is None else probe,
        ).checked(self.rules)
        if any(t.name == wanted.name and t.id != view.id for t in self.targets()):
            raise Conflict(f"there is a target named {wanted.name!r} already; choose another name")
        now = self._clock.wall_ms()
        with self.change() as tx:
            rules.rewrite(tx, view.id, wanted)
            rules.renew_sets(tx, now, {view.id} if wanted != before else ())
            tx.audit(now, actor, "targets.change", wanted.name, f"{_spell(before)} -> {_spell(wanted)}")
        return self.snapshot.targets[view.id]

    def remove_target(self, ref: str, actor: str) -> TargetView:
        """Raises NotFound, Conflict."""
        view = self._own_target(ref)
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = tx.target(view.id)
            if row is not None:
                row.removed_ms = now
            tx.audit(now, actor, "targets.remove", view.name, view.address)
        return view

    def put_targets(self, wanted: Iterable[tuple[str, str] | tuple[str, str, Probe]], actor: str) -> list[TargetView]:
        """Make the whole list (mesh targets aside) equal to `wanted`, (name, address) or (name, address, probe) each.

        The same list again changes nothing.
        """
        clean = [rules.Wanted(*item).checked(self.rules) for item in wanted]
        self.refresh()
        own = [(t.name, t.address, t.probe) for t in self.targets() if t.agent_no is None]
        mesh = {(t.name, t.address, t.probe) for t in self.targets() if t.agent_no is not None}
        if own == [item for item in clean if item not in mesh]:
            return self.targets()
        now = self._clock.wall_ms()
        with self.change() as tx:
            rules.renew_sets(tx, now, rules.replace_all(tx, clean, now))
            tx.audit(now, actor, "targets.put", f"{len(clean)} targets")
        return self.targets()

    def _own_target(self, ref: str) -> TargetView:
        view = self.target(ref)
        if view.agent_no is not None:
            raise Conflict(f"{view.name} is a target because the agent is approved; delete or reject the agent instead")
        return view


def _spell(wanted: rules.Wanted) -> str:
    return " ".join([wanted.name, wanted.address, *spell_probe(wanted.probe)])
