"""Approval before the first contact: an administrator's tool has read an agent's key over SSH and vouches for it.

No shared secret exists then. Must not know: sockets, Flask, how a key is proven.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pingmon.store.directory import Transaction
from pingmon.store.models import Agent
from pingmon_agent.wire.contract import State, WireError, check_hostname, check_ip
from pingmon_agent.wire.framing import unb64u
from pingmon_agent.wire.seal import fingerprint

from . import addresses
from .approval import Approvals, enter
from .errors import Conflict, Invalid
from .ids import new_uid
from .views import AgentView


@dataclass(frozen=True)
class Vouched:
    """What is known of an agent before it comes."""

    hostname: str
    ip_address: str
    public: bytes
    allowed: tuple[str, ...]
    observed_ignored: bool

    @classmethod
    def of(
        cls, hostname: str, ip_address: str, public_key: str, allowed: Iterable[str], observed_ignored: bool
    ) -> Vouched:
        """Checked; raises Invalid."""
        try:
            name, ip, public = check_hostname(hostname), check_ip(ip_address), unb64u(public_key, 32)
        except WireError as error:
            raise Invalid(f"{error.message}; `pingmon-agent identity` prints what belongs here") from None
        return cls(name, ip, public, tuple(addresses.check_entries([ip, *allowed])), observed_ignored)

    @property
    def key_fpr(self) -> str:
        """The fingerprint of the key."""
        return fingerprint(self.public)


class PreApprovals(Approvals):
    """The same decisions, and one more."""

    def preapprove(
        self,
        hostname: str,
        ip_address: str,
        public_key: str,
        actor: str,
        *,
        allowed: Iterable[str] = (),
        observed_ignored: bool = False,
        replace: bool = False,
    ) -> AgentView:
        """Approve a key (32 bytes, base64url) before its first contact; the same again changes nothing.

        `replace`: an approved agent of this hostname gets this key and keeps id and history. Raises Invalid, Conflict.
        """
        ask = Vouched.of(hostname, ip_address, public_key, allowed, observed_ignored)
        self.refresh()
        known = self.snapshot.agents.get(self.snapshot.by_key.get(ask.key_fpr, 0))
        rival = self.measuring(ask.hostname)
        check(ask, known, rival, replace)
        if known is not None and known.state is not State.PENDING:
            return known
        with self.change() as tx:
            row = self._place(tx, ask, known, rival)
            now = self._clock.wall_ms()
            self._vouch(tx, row, ask, now)
            self._record(tx, row, now, actor, "agents.preapprove", f"key {ask.key_fpr}")
        return self.snapshot.agents[row.no or 0]

    @staticmethod
    def _vouch(tx: Transaction, row: Agent, ask: Vouched, now_ms: int) -> None:
        row.public_key, row.key_fingerprint, row.legacy = ask.public, ask.key_fpr, False
        row.ip_address = row.observed_ip = ask.ip_address
        row.allowed, row.observed_ignored = addresses.pack(ask.allowed), ask.observed_ignored
        enter(tx, row, State.APPROVED, None, now_ms)

    def _place(self, tx: Transaction, ask: Vouched, known: AgentView | None, rival: AgentView | None) -> Agent:
        """The row that gets the key: of the agent that is replaced, of the one that waits, or a new one."""
        now = self._clock.wall_ms()
        if rival is not None:
            if known is not None:
                self._row(tx, known.no).deleted_ms = now
                tx.flush()
            return self._row(tx, rival.no)
        if known is not None:
            return self._row(tx, known.no)
        fresh = Agent(uid=new_uid(now), hostname=ask.hostname, ip_address=ask.ip_address, observed_ip=ask.ip_address,
                      state=State.PENDING, version="", legacy=False, registered_ms=now, seen_ms=now)  # fmt: skip
        return tx.add_agent(fresh)


def check(ask: Vouched, known: AgentView | None, rival: AgentView | None, replace: bool) -> None:
    """Raises Conflict where this key may not be approved under this name."""
    name = ask.hostname
    if known is not None and known.hostname != name:
        raise Conflict(f"this key is that of {known.hostname} ({known.id}): a cloned machine needs a key of its own; "
                       "remove its identity.key and start its agent again")  # fmt: skip
    if known is not None and known.state is State.BLACKLISTED:
        raise Conflict(f"{name} was rejected ({known.id}); approve it by hand if that was wrong")
    if rival is not None and rival != known and not replace:
        raise Conflict(f"another agent called {name} is approved already ({rival.id}); delete it, or let this key "
                       "replace its key with --replace")  # fmt: skip
