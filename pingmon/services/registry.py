"""Agents and targets: the one place that decides, and a copy of the directory in memory for everything that only reads.

Each decision is one transaction with its audit line; then the copy is made anew and listeners hear which agents it
concerns. `refresh()` notices what other programs (the command line) changed. Must not know: sockets, Flask, samples.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.directory import Directory, Transaction, unpack_ids
from pingmon.store.models import Agent, Passphrase
from pingmon_agent.wire.contract import Probe, State, Target, TargetSet

from . import targets as rules
from .clock import Clock
from .errors import Conflict, NotFound
from .probes import spell_probe
from .views import AgentView, SetView, TargetView

MAX_OLD_SETS = 4_096  # kept by memory, not by age: they come back from the database when somebody needs them
STANDARD = Probe()
Listener = Callable[[frozenset[int]], None]


@dataclass(frozen=True)
class Snapshot:
    """The directory as it stood at `revision`; `targets` in column order, `sets` of those that measure."""

    revision: int = -1
    agents: dict[int, AgentView] = field(default_factory=dict)
    targets: dict[int, TargetView] = field(default_factory=dict)
    sets: dict[int, SetView] = field(default_factory=dict)
    passphrases: dict[str, Passphrase] = field(default_factory=dict)
    by_identity: dict[tuple[str, str | None], int] = field(default_factory=dict)


class Registry:
    """Decisions and lookups. `connected` is kept by the agent socket; everything else changes here only."""

    def __init__(self, directory: Directory, clock: Clock, *, mesh: bool, interval_s: float) -> None:
        self._directory, self._clock = directory, clock
        self.mesh, self.interval_s = mesh, interval_s
        self.listeners: list[Listener] = []
        self.connected: set[int] = set()
        self._seen: dict[int, int] = {}
        self._unsaved: set[int] = set()
        self._old_sets: dict[tuple[int, int], SetView] = {}
        self._lock = threading.RLock()
        self.snapshot = Snapshot()
        self.refresh()

    # -- reading: memory only --

    def agents(self) -> list[AgentView]:
        """All agents, oldest first."""
        return list(self.snapshot.agents.values())

    def agent(self, ref: str) -> AgentView:
        """By id, or by hostname; of several with one hostname the approved one. Raises NotFound."""
        agents = self.snapshot.agents.values()
        # An id before all: a stranger may call himself like the id of another.
        found = [a for a in agents if a.id == ref] or [a for a in agents if a.hostname == ref]
        measuring = [a for a in found if a.state in rules.MEASURING]
        if len(found) > 1 and len(measuring) != 1:
            raise Conflict(f"several agents are called {ref!r}; use the id, one of {', '.join(a.id for a in found)}")
        if not found:
            raise NotFound(f"there is no agent {ref!r}; `pingmon agents list` shows ids and hostnames")
        return found[0] if len(found) == 1 else measuring[0]

    def targets(self) -> list[TargetView]:
        """All targets in column order."""
        return list(self.snapshot.targets.values())

    def target(self, ref: str) -> TargetView:
        """By id, else by name, else by address. Raises NotFound."""
        for key in ("id", "name", "address"):
            for view in self.snapshot.targets.values():
                if str(getattr(view, key)) == ref:
                    return view
        raise NotFound(f"there is no target {ref!r}; `pingmon targets list` shows ids, names and addresses")

    def target_set(self, agent_no: int, revision: int) -> SetView | None:
        """The set an agent had under a revision; older ones come from the database once and stay in memory."""
        current = self.snapshot.sets.get(agent_no)
        if current is not None and current.revision == revision:
            return current
        if (agent_no, revision) not in self._old_sets:
            with self._directory.transaction() as tx:
                row = tx.target_set(agent_no, revision)
            if row is None:
                return None
            view = SetView(revision=revision, target_ids=unpack_ids(row.target_ids))
            if len(self._old_sets) >= MAX_OLD_SETS:
                self._old_sets.clear()
            self._old_sets[agent_no, revision] = view
        return self._old_sets[agent_no, revision]

    def message_for(self, agent_no: int) -> TargetSet:
        """What `update_targets` tells this agent now."""
        snapshot = self.snapshot
        view = snapshot.sets.get(agent_no, SetView(revision=0, target_ids=()))
        chosen = (snapshot.targets[i] for i in dict.fromkeys(view.target_ids) if i in snapshot.targets)
        return TargetSet(
            agent_id=snapshot.agents[agent_no].id,
            revision=view.revision,
            issued_at=self._clock.wall_ms(),
            interval_s=self.interval_s,
            targets=tuple(Target(id=t.id, name=t.name, address=t.address, probe=t.probe) for t in chosen),
        )

    def describe(self, view: AgentView) -> dict[str, Any]:
        """An agent as JSON, with what only the running server knows."""
        seen = max(view.last_seen_ms, self._seen.get(view.no, 0))
        return view.as_json() | {"connected": view.no in self.connected, "last_seen": seen / 1000}

    # -- keeping up --

    def refresh(self) -> bool:
        """Read the directory again if anybody changed it; True if so."""
        # Two threads that swap the copy at once would each tell listeners half of what changed.
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        with self._directory.transaction() as tx:
            if tx.revision() == self.snapshot.revision:
                return False
            fresh = _read(tx)
        old, self.snapshot = self.snapshot, fresh
        concerned = frozenset(
            no for no in old.agents.keys() | fresh.agents.keys() if _differs(old, fresh, no)
        )  # fmt: skip
        for listener in self.listeners:
            listener(concerned)
        return True

    def touch(self, agent_no: int) -> None:
        """Note that this agent was heard of; written to the database by `flush_seen`."""
        self._seen[agent_no] = self._clock.wall_ms()
        self._unsaved.add(agent_no)

    def flush_seen(self) -> None:
        """Save when agents were last heard of (once a minute; not worth a transaction per message)."""
        self._seen = {no: ms for no, ms in self._seen.items() if no in self.snapshot.agents}
        unsaved, self._unsaved = self._unsaved & self._seen.keys(), set()
        with self._directory.transaction() as tx:
            for agent in tx.agents():
                if agent.no in unsaved:
                    agent.seen_ms = self._seen[agent.no]

    @contextmanager
    def change(self) -> Iterator[Transaction]:
        """One decision: a transaction that ends with new target sets and a fresh copy in memory."""
        with self._directory.transaction() as tx:
            yield tx
            rules.renew_sets(tx, self._clock.wall_ms())
            tx.changed()
        self.refresh()

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
        return view

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
            moved = rules.follow_agent(tx, row, self._in_mesh(row), now)
            rules.renew_sets(tx, now, moved)
            tx.audit(now, actor, action, row.uid, row.hostname)
        return self.snapshot.agents[view.no]

    def _in_mesh(self, row: Agent) -> bool:
        return self.mesh and row.mesh and not row.legacy and row.state in rules.MEASURING

    @staticmethod
    def _row(tx: Transaction, agent_no: int) -> Agent:
        row = tx.agent(agent_no)
        if row is None:
            raise NotFound("the agent was deleted in the meantime; load the list again")
        return row

    # -- decisions about targets --

    def add_target(self, name: str, address: str, actor: str, probe: Probe = STANDARD) -> TargetView:
        """Raises Invalid, Conflict."""
        wanted = rules.Wanted(name, address, probe).checked()
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
        ).checked()
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
        clean = [rules.Wanted(*item).checked() for item in wanted]
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


def _read(tx: Transaction) -> Snapshot:
    rows, passphrases = tx.agents(), {p.id: p for p in tx.passphrases()}
    labels = {p.id: p.label for p in passphrases.values()}
    namesakes: dict[str, list[str]] = {}
    for row in rows:
        namesakes.setdefault(row.hostname, []).append(row.uid)
    agents = {
        view.no: view
        for row in rows
        for view in [AgentView.of(row, labels, tuple(u for u in namesakes[row.hostname] if u != row.uid))]
    }
    uids = {no: view.id for no, view in agents.items()}
    views = [TargetView.of(row, uids.get(row.agent_no or 0)) for row in tx.targets()]
    return Snapshot(
        revision=tx.revision(),
        agents=agents,
        targets={view.id: view for view in views},
        sets={
            no: SetView(revision=row.revision, target_ids=unpack_ids(row.target_ids))
            for no, row in tx.latest_sets().items()
            if no in agents and agents[no].state in rules.MEASURING
        },
        passphrases=passphrases,
        by_identity={(view.hostname, view.passphrase_id): no for no, view in agents.items()},
    )


def _differs(old: Snapshot, fresh: Snapshot, no: int) -> bool:
    before, after = old.agents.get(no), fresh.agents.get(no)
    if before is None or after is None or (before.state, before.hold_reason) != (after.state, after.hold_reason):
        return True
    return old.sets.get(no) != fresh.sets.get(no)
