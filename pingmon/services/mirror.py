"""A copy of the directory in memory: what agents, targets and sets there are, for everything that only reads.

`refresh()` notices what other programs (the command line) changed, and tells listeners which agents it concerns.
Must not know: sockets, Flask, samples, what may be decided.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pingmon.store.directory import Directory, Transaction, unpack_ids
from pingmon.store.models import Passphrase
from pingmon_agent.wire.contract import Target, TargetSet

from . import targets
from .aim import Aim, Fleet, Rules
from .clock import Clock
from .errors import Conflict, NotFound
from .views import AgentView, SetView, TargetView

MAX_OLD_SETS = 4_096  # kept by memory, not by age: they come back from the database when somebody needs them
Listener = Callable[[frozenset[int]], None]


@dataclass(frozen=True)
class Snapshot:
    """The directory as it stood at `revision`; `targets` in column order, `sets` of those that measure."""

    revision: int = -1
    agents: dict[int, AgentView] = field(default_factory=dict)
    targets: dict[int, TargetView] = field(default_factory=dict)
    sets: dict[int, SetView] = field(default_factory=dict)
    passphrases: dict[str, Passphrase] = field(default_factory=dict)
    by_identity: dict[tuple[str, str | None], int] = field(default_factory=dict)  # of those without a key
    by_key: dict[str, int] = field(default_factory=dict)
    known_hostnames: frozenset[str] = frozenset()  # of which an agent with a key was approved once


class Mirror:
    """Lookups. `connected` and `duplicates` are kept by the agent socket, the rest follows the database."""

    def __init__(self, directory: Directory, clock: Clock, rules: Rules, *, mesh: bool, interval_s: float) -> None:
        self._directory, self._clock, self.rules = directory, clock, rules
        self.mesh, self.interval_s = mesh, interval_s
        self.listeners: list[Listener] = []
        self.connected: set[int] = set()
        self.duplicates: dict[int, tuple[str, int]] = {}  # agent -> where its key was last seen twice from, unix ms
        self._seen: dict[int, int] = {}
        self._unsaved: set[int] = set()
        self._versions: dict[int, str] = {}  # said by agents, not in the database yet
        self._old_sets: dict[tuple[int, int], SetView] = {}
        self._columns: dict[int, tuple[int, dict[int, tuple[int, ...]]]] = {}  # as of a revision of the directory
        self._lock = threading.RLock()
        self._pulse = -1
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
        measuring = [a for a in found if a.state in targets.MEASURING]
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
        if ref.isdecimal() and ref.isascii() and (found := self.snapshot.targets.get(int(ref))) is not None:
            return found
        for key in ("name", "address"):
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
            with self._directory.reading() as tx:
                row = tx.target_set(agent_no, revision)
            if row is None:
                return None
            view = SetView(revision=revision, target_ids=unpack_ids(row.target_ids))
            if len(self._old_sets) >= MAX_OLD_SETS:
                self._old_sets.clear()
            self._old_sets[agent_no, revision] = view
        return self._old_sets[agent_no, revision]

    def columns(self, agent_no: int) -> dict[int, tuple[int, ...]]:
        """Revision -> target id of each column, for all sets of an agent that are kept; asks the database once."""
        revision, found = self._columns.get(agent_no, (-1, {}))
        if revision != self.snapshot.revision:
            revision = self.snapshot.revision
            with self._directory.reading() as tx:
                found = {row.revision: unpack_ids(row.target_ids) for row in tx.sets_of(agent_no)}
            if len(self._columns) >= MAX_OLD_SETS:
                self._columns.clear()
            self._columns[agent_no] = revision, found
        return found

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
        twice = self.duplicates.get(view.no)
        duplicate = {"seen_from": twice[0], "at": twice[1] / 1000} if twice else None
        live = {"connected": view.no in self.connected, "last_seen": seen / 1000, "duplicate_identity": duplicate}
        return view.as_json() | live | {"not_in_mesh": self.why_not_in_mesh(view)}

    def why_not_in_mesh(self, view: AgentView) -> str | None:
        """Why an agent that should be a target of the others is none; None if it is, or should not be."""
        wanted = self.mesh and view.mesh and not view.legacy
        return self.rules.why_not_in_mesh(view.ip_address, view.observed_ip) if wanted else None

    def check_load(self) -> None:
        """Raises Conflict where the targets that there are load one of them, or the agents, above the limits."""
        self.rules.check_all(*self._load())

    def _load(self) -> tuple[Fleet, list[Aim]]:
        views = self.targets()
        return targets.fleet_of(self.agents()), [Aim(v.name, v.address, v.probe, v.agent_no) for v in views]

    # -- keeping up --

    def refresh(self) -> bool:
        """Read the directory again if anybody changed it; True if so."""
        # Two threads that swap the copy at once would each tell listeners half of what changed.
        with self._lock:
            return self._refresh()

    def catch_up(self) -> None:
        """As `refresh`, for who asks ten times a second: next to nothing where nobody has committed anything."""
        pulse = self._directory.pulse()
        if pulse != self._pulse:
            self.refresh()
            self._pulse = pulse

    def _refresh(self) -> bool:
        with self._directory.reading() as tx:
            if tx.revision() == self.snapshot.revision:
                return False
            fresh = _read(tx)
        for agent_no, version in self._versions.items():
            _put_version(fresh, agent_no, version)
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

    def touch_version(self, agent_no: int, version: str) -> None:
        """As `touch`, and it runs this version now: decides nothing, so a whole fleet may be upgraded at once."""
        with self._lock:
            self._versions[agent_no] = version
            _put_version(self.snapshot, agent_no, version)
        self.touch(agent_no)

    def flush_seen(self) -> None:
        """Save when agents were last heard of, and their versions (once a minute; not worth a transaction each)."""
        self._seen = {no: ms for no, ms in self._seen.items() if no in self.snapshot.agents}
        unsaved, self._unsaved = self._unsaved & self._seen.keys(), set()
        versions = dict(self._versions)
        with self._directory.transaction() as tx:
            for agent in tx.agents():
                if agent.no in unsaved:
                    agent.seen_ms = self._seen[agent.no]
                agent.version = versions.get(agent.no or 0, agent.version)
        self._saved(versions)

    def flush_versions(self) -> None:
        """Save the versions alone, every few seconds: whoever has just upgraded a fleet waits for them."""
        versions = dict(self._versions)
        if not versions:
            return
        with self._directory.transaction() as tx:
            for agent in tx.agents():
                agent.version = versions.get(agent.no or 0, agent.version)
        self._saved(versions)

    def _saved(self, versions: dict[int, str]) -> None:
        with self._lock:  # what was said while this was written stays for the next time
            self._versions = {no: said for no, said in self._versions.items() if versions.get(no) != said}

    @contextmanager
    def change(self) -> Iterator[Transaction]:
        """One decision: a transaction that ends with new target sets and a fresh copy in memory.

        Raises Conflict, and changes nothing, where it would load a target or the agents above the limits of [targets].
        """
        before = self._load()
        with self._directory.transaction() as tx:
            yield tx
            self.rules.check_growth(before, targets.renew_sets(tx, self._clock.wall_ms()))
            tx.changed()
        self.refresh()


def _read(tx: Transaction) -> Snapshot:
    rows, passphrases = tx.agents(), {p.id: p for p in tx.passphrases()}
    namesakes: dict[str, list[str]] = {}
    for row in rows:
        namesakes.setdefault(row.hostname, []).append(row.uid)
    agents = {
        view.no: view
        for row in rows
        for view in [
            AgentView.of(
                row, passphrases.get(row.passphrase_id or ""), tuple(u for u in namesakes[row.hostname] if u != row.uid)
            )
        ]
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
            if no in agents and agents[no].state in targets.MEASURING
        },
        passphrases=passphrases,
        by_identity={(view.hostname, view.passphrase_id): no for no, view in agents.items() if view.key_fpr is None},
        by_key={view.key_fpr: no for no, view in agents.items() if view.key_fpr is not None},
        known_hostnames=frozenset(tx.known_hostnames()),
    )


def _put_version(snapshot: Snapshot, agent_no: int, version: str) -> None:
    view = snapshot.agents.get(agent_no)
    if view is not None:
        snapshot.agents[agent_no] = replace(view, version=version)


def _told(view: AgentView) -> tuple[object, ...]:
    """What of an agent it is told itself."""
    return (view.state, view.hold_reason, view.revoked)


def _differs(old: Snapshot, fresh: Snapshot, no: int) -> bool:
    before, after = old.agents.get(no), fresh.agents.get(no)
    if before is None or after is None or _told(before) != _told(after):
        return True
    return old.sets.get(no) != fresh.sets.get(no)
