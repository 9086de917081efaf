"""Target rules: what may be a target, what a list change means, and which agent gets which set.

All functions work inside a transaction that the registry opened. Must not know: sockets, Flask, the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pingmon.store.directory import Transaction, pack_ids
from pingmon.store.models import Agent, Target, TargetSet
from pingmon_agent.wire.contract import MAX_TARGETS, Probe, State

from .aim import Aim, Fleet, Rules
from .errors import Conflict, Invalid
from .probes import probe_of, probe_text
from .views import AgentView

# An agent on hold keeps measuring what it was told, so its set is kept up to date too.
MEASURING = (State.APPROVED, State.HOLD)


def check_label(text: str) -> str:
    """A target's name as shown in the grid; raises Invalid."""
    label = text.strip()
    if not 1 <= len(label) <= 100 or not label.isprintable():
        raise Invalid(f"{text!r} cannot be a target's name; use 1 to 100 printable characters")
    return label


class Wanted(NamedTuple):
    """A target as somebody asks for it."""

    name: str
    address: str
    probe: Probe = Probe()

    def checked(self, rules: Rules) -> Wanted:
        """The same in canonical form; raises Invalid."""
        return Wanted(check_label(self.name), rules.check_address(self.address), self.probe)


def _row(wanted: Wanted, now_ms: int, agent_no: int | None = None) -> Target:
    return Target(
        name=wanted.name,
        address=wanted.address,
        probe=probe_text(wanted.probe),
        agent_no=agent_no,
        created_ms=now_ms,
    )


def add(tx: Transaction, wanted: Wanted, now_ms: int) -> Target:
    """Save one target; raises Conflict where the name is taken or the list is full."""
    live = tx.targets()
    if any(t.name == wanted.name for t in live):
        raise Conflict(f"there is a target named {wanted.name!r} already; choose another name or change that one")
    row = _row(wanted, now_ms)
    check_room([*live, row])
    return tx.add_target(row)


def replace_all(tx: Transaction, wanted: Sequence[Wanted], now_ms: int) -> set[int]:
    """Make the list of targets that are no agents equal to `wanted`; returns ids whose data changed.

    A name that stays keeps its id, so its history goes on. An agent that is in the list with its address is no
    conflict: it may have been approved since the list was written.
    """
    names = Counter(w.name for w in wanted)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise Invalid(f"the list names {twice!r} twice; each target needs a name of its own")
    live = {t.name: t for t in tx.targets()}
    gone = [t for t in live.values() if t.agent_no is None and t.name not in names]
    for target in gone:
        target.removed_ms = now_ms
    tx.flush()
    fresh = [_row(w, now_ms) for w in wanted if w.name not in live]
    changed = _change([(live[w.name], w) for w in wanted if w.name in live])
    check_room([t for t in live.values() if t.removed_ms is None] + fresh)
    tx.add_targets(fresh)
    return changed


def _change(pairs: Sequence[tuple[Target, Wanted]]) -> set[int]:
    changed = set()
    for target, wanted in pairs:
        probe = probe_text(wanted.probe)
        if (target.address, target.probe) == (wanted.address, probe) or target.id is None:
            continue
        if target.agent_no is not None and target.address != wanted.address:
            raise Conflict(f"{target.name!r} is an agent's own target; give yours another name")
        target.address, target.probe = wanted.address, probe
        changed.add(target.id)
    return changed


def rewrite(tx: Transaction, target_id: int, wanted: Wanted) -> None:
    """Save another name, address or way to probe; raises Conflict where that would be too much for a round."""
    row = tx.target(target_id)
    if row is not None:
        row.name, row.address, row.probe = wanted.name, wanted.address, probe_text(wanted.probe)
        check_room(tx.targets())


def fleet_of(agents: Iterable[Agent | AgentView]) -> Fleet:
    """Of all agents, those that measure."""
    measuring = [agent for agent in agents if agent.state in MEASURING]
    return Fleet(frozenset(a.no for a in measuring if a.no is not None), frozenset(a.observed_ip for a in measuring))


def columns(target: Target) -> int:
    """Samples of one target in a round."""
    return probe_of(target.probe).columns


def check_room(live: Sequence[Target]) -> None:
    """Raises Conflict where one agent could not report all this in one message."""
    count = sum(columns(target) for target in live)
    if count > MAX_TARGETS:
        raise Conflict(
            f"these are {count} probes in a round, more than the {MAX_TARGETS} that one agent can report; "
            "remove targets or lower their count"
        )


class _Board:
    """The targets as they stand inside one transaction, found by name and by agent."""

    def __init__(self, tx: Transaction) -> None:
        self._tx, self.grown = tx, False
        self.by_name = {t.name: t for t in tx.targets()}
        self.by_agent = {t.agent_no: t for t in self.by_name.values() if t.agent_no is not None}

    def add(self, wanted: Wanted, now_ms: int, agent_no: int | None) -> None:
        if wanted.name in self.by_name:
            raise Conflict(f"there is a target named {wanted.name!r} already; choose another name or change that one")
        self.by_name[wanted.name] = self._tx.add_target(_row(wanted, now_ms, agent_no))
        self.grown = True

    def remove(self, target: Target, now_ms: int) -> None:
        target.removed_ms = now_ms
        self._tx.flush()  # its name is free for another one
        del self.by_name[target.name]


def follow_agent(tx: Transaction, agent: Agent, wanted: bool, now_ms: int) -> set[int]:
    """Make the mesh target of an agent exist with the right address, or not exist; returns ids whose data changed."""
    return follow_agents(tx, [(agent, wanted)], now_ms)


def follow_agents(tx: Transaction, agents: Iterable[tuple[Agent, bool]], now_ms: int) -> set[int]:
    """The same for many agents, each with whether its target is wanted; reads the targets once."""
    board, changed = _Board(tx), set[int]()
    for agent, wanted in agents:
        changed |= _follow(board, agent, wanted, now_ms)
    if board.grown:
        check_room(list(board.by_name.values()))
    return changed


def _follow(board: _Board, agent: Agent, wanted: bool, now_ms: int) -> set[int]:
    mine = board.by_agent.get(agent.no or 0)
    if not wanted:
        if mine is not None and mine.adopted:
            mine.agent_no, mine.adopted = None, False
        elif mine is not None:
            board.remove(mine, now_ms)
        return set()
    if mine is None:
        _adopt_or_add(board, agent, now_ms)
        return set()
    if mine.address == agent.ip_address or mine.id is None:
        return set()
    mine.address = agent.ip_address
    return {mine.id}


def _adopt_or_add(board: _Board, agent: Agent, now_ms: int) -> None:
    same = board.by_name.get(agent.hostname)
    if same is None:
        board.add(Wanted(agent.hostname, agent.ip_address), now_ms, agent.no)
    elif same.agent_no is None and same.address == agent.ip_address:
        same.agent_no, same.adopted = agent.no, True
    else:
        board.add(Wanted(f"{agent.hostname} (agent {agent.no})", agent.ip_address), now_ms, agent.no)


def renew_sets(tx: Transaction, now_ms: int, changed: Iterable[int] = ()) -> tuple[Fleet, list[Aim]]:
    """Write a new revision for each agent whose set, or the address of something in it, is not what it was.

    Returns what the rules of [targets] must know of the result.
    """
    tx.flush()
    live, latest, touched, agents = tx.targets(), tx.latest_sets(), set(changed), tx.agents()
    # Read once and cut by slices: this runs for every agent at every change, on the hub.
    ids, own = _columns_of(live)
    for agent in agents:
        if agent.state not in MEASURING or agent.no is None:
            continue
        start, end = own.get(agent.no, (0, 0))
        wanted = ids[:start] + ids[end:]
        packed, last = pack_ids(wanted), latest.get(agent.no)
        if last is not None and last.target_ids == packed and touched.isdisjoint(wanted):
            continue
        revision = last.revision + 1 if last else 1
        tx.add_target_set(TargetSet(agent_no=agent.no, revision=revision, target_ids=packed, created_ms=now_ms))
    return fleet_of(agents), [Aim(t.name, t.address, probe_of(t.probe), t.agent_no) for t in live]


def _columns_of(live: Sequence[Target]) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """(target id of each column, {agent number: first and last + 1 column of its own target})."""
    ids: list[int] = []
    own: dict[int, tuple[int, int]] = {}
    for target in live:
        start = len(ids)
        ids += [target.id or 0] * columns(target)
        if target.agent_no is not None:
            own[target.agent_no] = (start, len(ids))
    return ids, own
