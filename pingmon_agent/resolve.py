"""Names -> addresses in a thread of its own, so that a slow name server never delays a probe.

The last good address of a name stays in use when looking it up again fails; a bad name harms no other. An address needs
no lookup. Must not know: rounds, sockets.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from icmplib import NameLookupError, resolve

from .log import say

_log = logging.getLogger(__name__)
# The system's resolver, which also knows /etc/hosts and the like, hides how long an answer is good for: the name
# servers are asked for that. Five minutes is for names they do not know.
REFRESH_S = 300.0
RETRY_S = SHORTEST_S = 30.0
LONGEST_S = 3600.0
_TTL_WAIT_S = 3.0
_WORKERS = 4
_STOP_S = 0.5

Lookup = Callable[[str], Sequence[str]]


@dataclass
class _Entry:
    addresses: tuple[str, ...] = ()
    due: float = 0.0
    failed: bool = False
    busy: bool = False


@functools.lru_cache(maxsize=16_384)  # asked for every target at every round
def literal(name: str) -> str | None:
    """`name` in canonical form if it is an address already (a zone is kept), else None."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None


class Resolver:
    """Keeps addresses of a set of names fresh. `lookup` returns addresses, IPv4 first, or raises NameLookupError."""

    def __init__(
        self,
        lookup: Lookup = resolve,
        now: Callable[[], float] = time.monotonic,
        ttl_of: Callable[[str], float | None] | None = None,
    ) -> None:
        """`ttl_of`: seconds that the name servers' answer is good for, None if they have none."""
        self._lookup, self._now, self._ttl_of = lookup, now, ttl_of or name_server_ttl
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self.changes = 0  # rises whenever `address` may answer differently
        self._wake, self._stop = threading.Event(), threading.Event()
        self._settled = threading.Condition(self._lock)
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name="resolver", daemon=True)]
        self._threads += [threading.Thread(target=self._answer, daemon=True) for _ in range(_WORKERS)]

    def start(self) -> None:
        """Begin to look names up."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look nothing up any more; a lookup that hangs is left behind."""
        self._stop.set()
        self._wake.set()
        for _ in range(_WORKERS):
            self._work.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_STOP_S / len(self._threads))

    def watch(self, names: Iterable[str]) -> None:
        """Keep exactly these names (addresses among them are passed over)."""
        wanted = {name for name in names if literal(name) is None}
        with self._lock:
            self._entries = {name: self._entries.get(name, _Entry()) for name in wanted}
            self.changes += 1
        self._wake.set()

    def address(self, name: str, family: int = 0) -> str | None:
        """The address to use for `name` now, of IP version `family` (0: either); None if there is none."""
        known = literal(name)
        if known is None:
            with self._lock:
                entry = self._entries.get(name)
                found = entry.addresses if entry else ()
        else:
            found = (known,)
        return next((a for a in found if not family or (6 if ":" in a else 4) == family), None)

    def settle(self, timeout_s: float) -> bool:
        """Wait until each watched name has resolved or failed once; False if that took longer."""
        with self._settled:
            return self._settled.wait_for(lambda: all(e.due > 0 for e in self._entries.values()), timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            with self._lock:
                due = [n for n, e in self._entries.items() if e.due <= self._now() and not e.busy]
                for name in due:
                    self._entries[name].busy = True
                pause = min((e.due - self._now() for e in self._entries.values() if not e.busy), default=REFRESH_S)
            for name in due:
                self._work.put(name)
            self._wake.wait(max(0.05, pause))

    def _answer(self) -> None:
        while (name := self._work.get()) is not None:
            if not self._stop.is_set():
                self._refresh(name)

    def _refresh(self, name: str) -> None:
        try:
            found = tuple(self._lookup(name))
        except (NameLookupError, UnicodeError):
            found = ()
        with self._settled:
            entry = self._entries.get(name)
            if entry is not None:
                self._store(name, entry, found)
            self._settled.notify_all()
        # Afterwards: an address that is known must not wait for name servers that do not answer.
        ttl = self._ttl_of(name) if found else None
        if entry is not None and ttl is not None:
            entry.due = self._now() + min(LONGEST_S, max(SHORTEST_S, ttl))
        self._wake.set()

    def _store(self, name: str, entry: _Entry, found: tuple[str, ...]) -> None:
        entry.busy = False
        entry.due = self._now() + (REFRESH_S if found else RETRY_S)
        before = ", ".join(entry.addresses)
        found = _one_of_each(found, entry.addresses)
        if found and found != entry.addresses:
            _log.info(say("name resolved", name=name, address=", ".join(found), before=before or "-"))
        if not found and not entry.failed:
            kept = f"its last address {before} stays in use" if before else "its target is not probed"
            _log.warning(say(f"name does not resolve, {kept}", name=name))
        self.changes += bool(found) and found != entry.addresses
        entry.addresses = found or entry.addresses
        entry.failed = not found


def name_server_ttl(name: str) -> float | None:
    """The shortest time to live of the addresses of `name`, asked of the name servers this host uses."""
    import dns.exception  # 6 MiB, which an agent without names need not have
    import dns.resolver

    ttls = []
    for kind in ("A", "AAAA"):
        try:
            answer = dns.resolver.resolve(name, kind, lifetime=_TTL_WAIT_S, search=True)
        except (dns.exception.DNSException, OSError):
            continue
        if answer.rrset is not None:
            ttls.append(float(answer.rrset.ttl))
    return min(ttls, default=None)


def _one_of_each(found: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """One address of each IP version, IPv4 first: the one in use while it is still given, or else the first.

    Name servers turn the order of many addresses around at each question: that is no change of the target.
    """
    chosen = []
    for six in (False, True):
        own = [a for a in found if (":" in a) is six]
        chosen += [next((a for a in now if a in own), own[0])] if own else []
    return tuple(chosen)
