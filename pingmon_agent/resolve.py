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
# The system's resolver hides the TTL of an answer; five minutes is what most records and caches allow.
REFRESH_S = 300.0
RETRY_S = 30.0
_WORKERS = 4
_STOP_S = 0.5

Lookup = Callable[[str], Sequence[str]]


@dataclass
class _Entry:
    address: str | None = None
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

    def __init__(self, lookup: Lookup = resolve, now: Callable[[], float] = time.monotonic) -> None:
        self._lookup, self._now = lookup, now
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

    def address(self, name: str) -> str | None:
        """The address to use for `name` now; None if it never resolved."""
        if (known := literal(name)) is not None:
            return known
        with self._lock:
            entry = self._entries.get(name)
            return entry.address if entry else None

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
            found = next(iter(self._lookup(name)), None)
        except (NameLookupError, UnicodeError):
            found = None
        with self._settled:
            entry = self._entries.get(name)
            if entry is not None:
                self._store(name, entry, found)
            self._settled.notify_all()
        self._wake.set()

    def _store(self, name: str, entry: _Entry, found: str | None) -> None:
        entry.busy = False
        entry.due = self._now() + (REFRESH_S if found else RETRY_S)
        if found and found != entry.address:
            _log.info(say("name resolved", name=name, address=found, before=entry.address or "-"))
        if not found and not entry.failed:
            kept = f"its last address {entry.address} stays in use" if entry.address else "its target is not probed"
            _log.warning(say(f"name does not resolve, {kept}", name=name))
        self.changes += found is not None and found != entry.address
        entry.address = found or entry.address
        entry.failed = found is None
