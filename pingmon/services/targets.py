"""Target rules: what may be a target, what a list change means, and which agent gets which set.

All functions work inside a transaction that the registry opened. Must not know: sockets, Flask, the clock.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence

from pingmon.store.directory import Transaction, pack_ids
from pingmon.store.models import Agent, Target, TargetSet
from pingmon_agent.wire.contract import MAX_TARGETS, State, WireError, check_hostname

from .errors import Conflict, Invalid

# An agent on hold keeps measuring what it was told, so its set is kept up to date too.
MEASURING = (State.APPROVED, State.HOLD)


def check_address(text: str) -> str:
    """An address or host name in canonical form; raises Invalid with the reason."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _check_name(text)
    if getattr(address, "scope_id", None) is not None:
        raise Invalid(f"{text!r} carries a zone (%...); give an address that is the same on every agent")
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise Invalid(f"{text!r} is not the address of one host; give a unicast address")
    return str(getattr(address, "ipv4_mapped", None) or address)


def _check_name(text: str) -> str:
    last = text.rstrip(".").rpartition(".")[2]
    try:
        name = check_hostname(text.rstrip("."))
    except WireError:
        name = ""
    # "300.1.1.1" and "2130706433" are broken addresses, not names: no top-level domain is a number.
    if not name or last.isdigit() or last.lower().startswith("0x"):
        raise Invalid(f"{text!r} is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1")
    return name


def check_label(text: str) -> str:
    """A target's name as shown in the grid; raises Invalid."""
    label = text.strip()
    if not 1 <= len(label) <= 100 or not label.isprintable():
        raise Invalid(f"{text!r} cannot be a target's name; use 1 to 100 printable characters")
    return label


def add(tx: Transaction, name: str, address: str, now_ms: int, agent_no: int | None = None) -> Target:
    """Save one target; raises Conflict where the name is taken or the list is full."""
    live = tx.targets()
    if any(t.name == name for t in live):
        raise Conflict(f"there is a target named {name!r} already; choose another name or change that one")
    _check_room(len(live) + 1)
    return tx.add_target(Target(name=name, address=address, agent_no=agent_no, created_ms=now_ms))


def replace_all(tx: Transaction, wanted: Sequence[tuple[str, str]], now_ms: int) -> set[int]:
    """Make the list of targets that are no agents equal to `wanted` [(name, address)]; returns ids whose data changed.

    A name that stays keeps its id, so its history goes on. An agent that is in the list with its address is no
    conflict: it may have been approved since the list was written.
    """
    names = Counter(name for name, _ in wanted)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise Invalid(f"the list names {twice!r} twice; each target needs a name of its own")
    live = {t.name: t for t in tx.targets()}
    gone = [t for t in live.values() if t.agent_no is None and t.name not in names]
    for target in gone:
        target.removed_ms = now_ms
    tx.flush()
    fresh = [Target(name=n, address=a, created_ms=now_ms) for n, a in wanted if n not in live]
    _check_room(len(live) - len(gone) + len(fresh))
    tx.add_targets(fresh)
    return _readdress([(live[name], address) for name, address in wanted if name in live])


def _readdress(pairs: Sequence[tuple[Target, str]]) -> set[int]:
    changed = set()
    for target, address in pairs:
        if target.address == address or target.id is None:
            continue
        if target.agent_no is not None:
            raise Conflict(f"{target.name!r} is an agent's own target; give yours another name")
        target.address = address
        changed.add(target.id)
    return changed


def _check_room(count: int) -> None:
    if count > MAX_TARGETS:
        raise Conflict(f"{count} targets are more than the {MAX_TARGETS} that one agent takes; remove some first")


def follow_agent(tx: Transaction, agent: Agent, wanted: bool, now_ms: int) -> set[int]:
    """Make the mesh target of an agent exist with the right address, or not exist; returns ids whose data changed."""
    mine = next((t for t in tx.targets() if t.agent_no == agent.no), None)
    if not wanted:
        if mine is not None:
            mine.removed_ms = now_ms
        return set()
    if mine is None:
        _adopt_or_add(tx, agent, now_ms)
        return set()
    if mine.address == agent.ip_address or mine.id is None:
        return set()
    mine.address = agent.ip_address
    return {mine.id}


def _adopt_or_add(tx: Transaction, agent: Agent, now_ms: int) -> None:
    same = next((t for t in tx.targets() if t.name == agent.hostname), None)
    if same is None:
        add(tx, agent.hostname, agent.ip_address, now_ms, agent.no)
    elif same.agent_no is None and same.address == agent.ip_address:
        same.agent_no = agent.no
    else:
        add(tx, f"{agent.hostname} (agent {agent.no})", agent.ip_address, now_ms, agent.no)


def renew_sets(tx: Transaction, now_ms: int, changed: Iterable[int] = ()) -> None:
    """Write a new revision for each agent whose set, or the address of something in it, is not what it was."""
    tx.flush()
    live, latest, touched = tx.targets(), tx.latest_sets(), set(changed)
    # Read once and cut by slices: this runs for every agent at every change, on the hub.
    ids = [t.id for t in live if t.id is not None]
    own = {t.agent_no: place for place, t in enumerate(live) if t.agent_no is not None}
    for agent in tx.agents():
        if agent.state not in MEASURING or agent.no is None:
            continue
        place = own.get(agent.no)
        wanted = ids if place is None else ids[:place] + ids[place + 1 :]
        packed, last = pack_ids(wanted), latest.get(agent.no)
        if last is not None and last.target_ids == packed and touched.isdisjoint(wanted):
            continue
        revision = last.revision + 1 if last else 1
        tx.add_target_set(TargetSet(agent_no=agent.no, revision=revision, target_ids=packed, created_ms=now_ms))
