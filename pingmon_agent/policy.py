"""What this host refuses to ping, whatever a server says: a file that only the host's owner writes.

Always refused: multicast, unspecified, link-local and broadcast addresses, and more than a target list may ask of one
host. The policy file refuses more, or raises the budget. Must not know: names, the server.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .wire.contract import Probe, TargetSet
from .wire.hosts import PolicyCode, parse, why_no_target

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
STANDARD_FILE = Path("/etc/pingmon/agent-policy.toml")
_LIMITS: dict[str, tuple[float, float]] = {
    "max_targets": (0, 1_000_000),
    "max_packets_per_s": (0, 1_000_000),
    "min_interval_s": (0.1, 3600),
    "max_size": (56, 1_400),
}
_ROUNDING = 1 + 1e-9  # 10,000 probes each 5 s add up to a little more than 2,000 a second


class PolicyError(Exception):
    """The policy file cannot be used; the text says what to change."""


@dataclass(frozen=True)
class Policy:
    """`allow` empty means everything; `deny` wins over `allow`. docs/decisions.md says where the numbers come from."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    max_targets: int = 5_000
    max_packets_per_s: float = 1_000.0
    min_interval_s: float = 1.0
    max_size: int = 1_400
    allow_loopback: bool = False

    def refuses(self, address: str) -> PolicyCode | None:
        """Why `address` is not pinged from here, or None."""
        why = why_no_target(address, self.allow_loopback)
        if why is not None:
            return why
        ip = parse(address)
        if any(ip in network for network in self.deny):
            return PolicyCode.DENIED
        if self.allow and not any(ip in network for network in self.allow):
            return PolicyCode.NOT_ALLOWED
        return None

    def over_budget(self, targets: TargetSet, refused: Collection[int]) -> dict[int, PolicyCode]:
        """Targets (by id) that this host has no budget for, in the order of the list; `refused` ones cost nothing."""
        over: dict[int, PolicyCode] = {}
        count, rate = 0, 0.0
        for target in targets.targets:
            if target.id in refused:
                continue
            period = targets.interval_s * target.probe.turns(targets.interval_s)
            cost = target.probe.columns / period
            why = self._too_much(target.probe, period, count + 1, rate + cost)
            if why is not None:
                over[target.id] = why
            else:
                count, rate = count + 1, rate + cost
        return over

    def _too_much(self, probe: Probe, period_s: float, count: int, rate: float) -> PolicyCode | None:
        if probe.size > self.max_size:
            return PolicyCode.SIZE
        if period_s * _ROUNDING < self.min_interval_s:
            return PolicyCode.INTERVAL
        if count > self.max_targets:
            return PolicyCode.TARGETS
        return PolicyCode.RATE if rate > self.max_packets_per_s * _ROUNDING else None


class Judge:
    """A policy, and the broadcast addresses of this host's networks as they are now."""

    def __init__(self, policy: Policy, broadcasts: Callable[[], Collection[str]] = tuple) -> None:
        self.policy, self._ask = policy, broadcasts
        self._broadcasts: Collection[str] = ()
        self._known: dict[str, PolicyCode | None] = {}

    def refuses(self, address: str) -> PolicyCode | None:
        """Why `address` is not pinged from here, or None. Raises ValueError for a name."""
        known = self._known  # another thread may begin a new one
        if address not in known:
            known[address] = self._judge(address)
        return known[address]

    def _judge(self, address: str) -> PolicyCode | None:
        why = self.policy.refuses(address)
        return PolicyCode.BROADCAST if why is None and str(parse(address)) in self._broadcasts else why

    def verdicts(self, targets: TargetSet) -> dict[int, PolicyCode]:
        """Targets (by id) of a new list that are not pinged from here, and why; names are judged when they resolve."""
        self._broadcasts, self._known = frozenset(self._ask()), {}
        found = {}
        for target in targets.targets:
            try:
                why = self.refuses(target.address)
            except ValueError:
                continue
            if why is not None:
                found[target.id] = why
        return found | self.policy.over_budget(targets, found)


def policy_of(file: str, allow_loopback: bool = False, uid: int | None = None) -> Policy:
    """The policy in `file`; for "" that of STANDARD_FILE, or the standard one where there is no such file.

    Raises PolicyError: a policy that cannot be read is never taken for "everything goes", nor is one that this program
    (running as `uid`) could rewrite itself.
    """
    path = Path(file) if file else STANDARD_FILE
    if not file and not path.exists():
        return Policy(allow_loopback=allow_loopback)
    return rules_of(path, _read(path, os.geteuid() if uid is None else uid), allow_loopback)


def rules_of(path: Path, table: Mapping[str, object], allow_loopback: bool = False) -> Policy:
    """The policy in a parsed file; raises PolicyError with a sentence that names `path` and the rule."""
    known = {field.name for field in fields(Policy)} - {"allow_loopback"}
    for key in table:
        if key not in known:
            raise PolicyError(f"{path}: {key} is not a rule; there are {', '.join(sorted(known))}")
    networks = {key: _networks(path, key, table) for key in ("allow", "deny") if key in table}
    limits = {key: _limit(path, key, table[key]) for key in _LIMITS if key in table}
    rules: Mapping[str, Any] = networks | limits
    return Policy(allow_loopback=allow_loopback, **rules)


def _read(path: Path, uid: int) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()), uid)
            _check_owner(path.parent, path.parent.stat(), uid)
            return tomllib.load(file)
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}); correct probe.policy_file or its rights"
        raise PolicyError(why) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not valid TOML: {error}") from None


def _check_owner(path: Path, status: os.stat_result, uid: int) -> None:
    """Neither the agent's user nor others may write the file, or put another one in its place."""
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_uid == uid != 0 or status.st_uid not in (0, uid):
        who = "the user that the agent runs as" if status.st_uid == uid else f"user {status.st_uid}"
        raise PolicyError(f"{path} belongs to {who}, so it guards nothing; run `chown root: {path}`")
    if status.st_mode & 0o022 and not sticky:
        raise PolicyError(f"others than root may write {path}, so it guards nothing; run `chmod go-w {path}`")


def _limit(path: Path, key: str, value: object) -> float:
    low, high = _LIMITS[key]
    whole = key in ("max_targets", "max_size")
    kind = int if whole else int | float
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
        word = "a whole number" if whole else "a number"
        raise PolicyError(f"{path}: {key} is {value!r}; it must be {word} between {low:g} and {high:g}")
    return value


def _networks(path: Path, key: str, table: Mapping[str, object]) -> tuple[Network, ...]:
    words = table[key]
    if not isinstance(words, Sequence) or isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise PolicyError(f'{path}: {key} must be a list of networks, such as ["192.0.2.0/24"]')
    try:
        return tuple(ipaddress.ip_network(word) for word in words)
    except ValueError as error:
        raise PolicyError(f'{path}: {key}: {error}; write networks such as "192.0.2.0/24"') from None
