"""What may be aimed at: addresses that are never a target, and how much of the fleet a target or an agent may carry.

The server resolves no name: which address a name stands for is judged by each agent, at each resolution. So a name
counts as somebody else's unless its domain is listed. docs/decisions.md says where the limits come from.
Must not know: sockets, Flask, the clock, the store.
"""

from __future__ import annotations

import functools
import ipaddress
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import idna

from pingmon.config import TargetsSection
from pingmon_agent.wire.contract import Probe, WireError, check_hostname
from pingmon_agent.wire.hosts import PolicyCode, parse, why_no_target

from .errors import Conflict, Invalid

_REFUSALS = {
    PolicyCode.MULTICAST: "is not the address of one host; give a unicast address",
    PolicyCode.NOT_A_HOST: "is not the address of one host; give a unicast address",
    PolicyCode.LINK_LOCAL: "is a link-local address, which is another host for every agent; give one that is routed",
    PolicyCode.LOOPBACK: "is a loopback address, which is another host for every agent; give another, or set "
    "targets.allow_loopback in server.toml (and probe.allow_loopback on the agents)",
}
_ROUNDING = 1 + 1e-9
# No name below these is in public DNS: they are reserved, or ICANN has said that it will not delegate them.
_PRIVATE_DOMAINS = ("internal", "local", "lan", "home.arpa", "corp", "home", "test", "example", "invalid", "localhost")


@dataclass(frozen=True)
class Aim:
    """A target as it costs: `own` = the number of the agent that it is."""

    name: str
    address: str
    probe: Probe
    own: int | None


@dataclass
class Load:
    """What one address gets from the whole fleet, or one agent has to send. `rate` in packets a second."""

    what: str
    aims: list[Aim] = field(default_factory=list)
    agents: int = 0
    packets: int = 0
    rate: float = 0.0


class Fleet(NamedTuple):
    """Numbers of the agents that measure, and the addresses at which they themselves were seen."""

    numbers: frozenset[int]
    seen_at: frozenset[str]


class Rules:
    """The section [targets] at work."""

    def __init__(self, settings: TargetsSection, interval_s: float) -> None:
        self._settings, self._interval_s = settings, interval_s
        self._networks = tuple(settings.networks)
        self._domains = (*settings.domains, *_PRIVATE_DOMAINS)
        self._theirs = functools.lru_cache(maxsize=16_384)(self._is_theirs)

    def check_address(self, text: str) -> str:
        """An address or host name in canonical form; raises Invalid with the reason."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return self._check_name(text)
        if getattr(address, "scope_id", None) is not None:
            raise Invalid(f"{text!r} carries a zone (%...); give an address that is the same on every agent")
        why = why_no_target(str(address), self._settings.allow_loopback)
        if why is not None:
            raise Invalid(f"{text!r} {_REFUSALS[why]}")
        return str(getattr(address, "ipv4_mapped", None) or address)

    def _check_name(self, text: str) -> str:
        try:
            name = check_hostname(_to_ascii(text.rstrip(".")))
        except (WireError, idna.IDNAError):
            name = ""
        last = name.rpartition(".")[2]
        # "300.1.1.1", "2130706433" and "0x7f.1" are addresses in disguise, not names: no top-level domain is a number.
        if not name or last.isdigit() or last.startswith("0x"):
            raise Invalid(f"{text!r} is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1")
        if last == "localhost" and not self._settings.allow_loopback:
            raise Invalid(f"{text!r} {_REFUSALS[PolicyCode.LOOPBACK]}")
        return name

    def why_not_in_mesh(self, claimed: str, observed: str) -> str | None:
        """Why an agent is no target of the others: it could claim anybody's address. None if it may be."""
        why = why_no_target(claimed, self._settings.allow_loopback)
        if why is not None:
            return f"{claimed} {_REFUSALS[why].partition(';')[0]}"
        if claimed == observed or not self._theirs(claimed):
            return None
        return (
            f"it claims {claimed} but was seen from {observed}; add {claimed} to targets.owned_networks in server.toml "
            "if it is right"
        )

    def _is_theirs(self, address: str) -> bool:
        """Whether somebody else may live at this address or name."""
        try:
            ip = parse(address)
        except ValueError:
            return "." in address and not any(f".{address}".endswith(f".{domain}") for domain in self._domains)
        return ip.is_global and not any(ip in network for network in self._networks)

    def check_growth(self, before: tuple[Fleet, Sequence[Aim]], after: tuple[Fleet, Sequence[Aim]]) -> None:
        """Raises Conflict, with the arithmetic, where `after` is above a limit and worse than `before`."""
        known = {load.what: load for load in self._loads(*before)}
        for load in self._loads(*after):
            sentence = self._too_much(load)
            old = known.get(load.what)
            # More agents send more, so the rate tells; more targets may be slower ones.
            grown = old is None or load.rate > old.rate * _ROUNDING or len(load.aims) > len(old.aims)
            if sentence is not None and grown:
                raise Conflict(sentence)

    def check_all(self, fleet: Fleet, aims: Sequence[Aim]) -> None:
        """Raises Conflict for the first limit that is passed, however that came about."""
        self.check_growth((Fleet(frozenset(), frozenset()), ()), (fleet, aims))

    def _loads(self, fleet: Fleet, aims: Sequence[Aim]) -> Iterable[Load]:
        loads: dict[str, Load] = {}
        whole, own = Load(""), 0.0
        for aim in aims:
            rate = aim.probe.columns / self._period(aim)
            whole.aims.append(aim)
            whole.rate += rate
            whole.packets += aim.probe.columns
            own = max(own, rate) if aim.own in fleet.numbers else own
            if aim.own is None and self._theirs(aim.address) and aim.address not in fleet.seen_at:
                load = loads.setdefault(_place(aim.address), Load(_place(aim.address)))
                load.aims.append(aim)
                load.agents = len(fleet.numbers)
                load.packets += aim.probe.columns
                load.rate += len(fleet.numbers) * rate
        return [whole, *loads.values()]

    def _period(self, aim: Aim) -> float:
        return self._interval_s * aim.probe.turns(self._interval_s)

    def _too_much(self, load: Load) -> str | None:
        return self._too_much_for_target(load) if load.what else self._too_much_for_agent(load)

    def _too_much_for_agent(self, load: Load) -> str | None:
        settings, count = self._settings, len(load.aims)
        if count > settings.agent_targets:
            return (
                f"each agent would have {count} targets > {settings.agent_targets} (targets.agent_targets in "
                "server.toml); remove targets or raise it"
            )
        if load.rate > settings.agent_packets_per_s * _ROUNDING:
            return (
                f"each agent would send {load.packets} packets / {self._interval_s:g} s = {load.rate:g} packets/s > "
                f"{settings.agent_packets_per_s:g} (targets.agent_packets_per_s in server.toml, max_packets_per_s in "
                "the agents' policy); remove targets, probe some at a longer interval_s, or raise both"
            )
        return None

    def _too_much_for_target(self, load: Load) -> str | None:
        settings, aim = self._settings, load.aims[0]
        if load.agents > settings.foreign_agents:
            problem = f"{load.agents} agents > {settings.foreign_agents} (targets.foreign_agents in server.toml)"
            mend = "take it off the list"
        elif load.rate > settings.foreign_packets_per_s * _ROUNDING:
            limit = settings.foreign_packets_per_s
            parts = " + ".join(f"{a.probe.columns} packets / {self._period(a):g} s" for a in load.aims[:3])
            more = " + ..." if len(load.aims) > 3 else ""
            terms = f"({parts}{more})" if len(load.aims) > 1 else parts
            problem = (
                f"{load.agents} agents x {terms} = {load.rate:g} packets/s > {limit:g} (targets.foreign_packets_per_s "
                "in server.toml)"
            )
            mend = f"probe it every {math.ceil(load.agents * load.packets / limit)} s or more seldom (interval_s)"
        else:
            return None
        where = "owned_networks" if _is_address(aim.address) else "owned_domains"
        return (
            f"{aim.name} ({aim.address}) is outside your own networks and would get too much: {problem}; if it is "
            f"yours, add it to targets.{where} in server.toml, else {mend}"
        )


def _is_address(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _place(address: str) -> str:
    """One word for all spellings of an address."""
    try:
        return str(parse(address))
    except ValueError:
        return address


def _to_ascii(text: str) -> str:
    """A name with other letters in the form that name servers know (bücher.example -> xn--bcher-kva.example)."""
    return text if text.isascii() else idna.encode(text, uts46=True).decode()
