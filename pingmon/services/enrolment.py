"""Enrolment: what a handshake means. pending -> approved -> hold, as the original contract has it.

Works on the registry's copy in memory; the database is touched only where something changes, so that a whole fleet may
come back at once. Must not know: sockets, Flask. The sealed exchange and agent keys get their place in `_identify`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from pingmon.store.directory import Transaction
from pingmon.store.models import Agent, Passphrase
from pingmon_agent.wire.contract import (
    MAX_MESSAGE_BYTES,
    MAX_ROUNDS_PER_REPORT,
    MAX_SAMPLES_PER_REPORT,
    ErrorCode,
    Handshake,
    State,
    WireError,
)

from .clock import Clock
from .errors import Conflict, Invalid, NotFound
from .passphrases import KIND_PLAIN, KIND_SEALED, Parsed, Pepper, generate, parse, spell
from .registry import Registry
from .targets import follow_agent
from .views import AgentView, PassphraseView

Json = dict[str, Any]
MAX_PENDING = 500
MAX_TTL_S = 366 * 86_400
RETRY_S = {State.PENDING: 60, State.HOLD: 60, State.BLACKLISTED: 3600}
REVOKED = "this passphrase was revoked; give the agent a new one"
LEGACY_DISABLED = (
    "this server takes no plain passphrase like this one; make one with `pingmon passphrases create --legacy` "
    "or on the Passphrases page and put it into the agent's passphrase file"
)


@dataclass(frozen=True)
class Greeting:
    """Who shook hands; the answer follows from the agent's state."""

    agent_no: int


def new_uid(wall_ms: int) -> str:
    """A UUIDv7: time-ordered and never used again."""
    value = (wall_ms & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Enrolment:
    """Handshakes and passphrases."""

    def __init__(self, registry: Registry, pepper: Pepper, clock: Clock) -> None:
        self._registry, self._pepper, self._clock = registry, pepper, clock

    # -- handshakes --

    def greet(self, hello: Handshake, observed_ip: str) -> Greeting:
        """Find or register the agent behind a handshake; raises WireError with the code it is answered with."""
        passphrase = self._identify(hello)
        no = self._registry.snapshot.by_identity.get((hello.hostname, passphrase.id))
        if no is None:
            return Greeting(self._register(hello, observed_ip, passphrase))
        if passphrase.revoked_ms is not None:
            raise WireError(ErrorCode.PASSPHRASE_REVOKED, REVOKED)
        self._meet_again(self._registry.snapshot.agents[no], hello, observed_ip)
        self._registry.touch(no)
        return Greeting(no)

    def reply(self, agent_no: int, upto: int) -> Json:
        """The body that tells an agent its state: answer to a handshake, and push whenever the state changes."""
        view = self._registry.snapshot.agents.get(agent_no)
        if view is None:
            return self.error(ErrorCode.STATE, "this agent was deleted; it may shake hands again", 60)
        if view.revoked:
            return self.error(ErrorCode.PASSPHRASE_REVOKED, REVOKED, 60)
        if view.state is State.APPROVED:
            current = self._registry.snapshot.sets.get(agent_no)
            limits = {
                "bytes": MAX_MESSAGE_BYTES,
                "rounds": MAX_ROUNDS_PER_REPORT,
                "samples": MAX_SAMPLES_PER_REPORT,
                "spread_s": max(1, len(self._registry.snapshot.agents) // 100),
            }
            return {
                "state": State.APPROVED,
                "agent_id": view.id,
                "upto": upto,
                "targets_rev": current.revision if current else 0,
                "limits": limits,
                "time": self._clock.wall_ms(),
            }
        body: Json = {"state": view.state, "retry_after_s": RETRY_S[view.state], "time": self._clock.wall_ms()}
        if view.state is State.PENDING:
            return body | {"registration_id": view.id}
        return body | {"agent_id": view.id, "reason": view.hold_reason or "operator"}

    @staticmethod
    def error(code: ErrorCode, message: str, retry_after_s: int) -> Json:
        """The body for a handshake that was refused."""
        return {"state": State.ERROR, "code": code, "message": message, "retry_after_s": retry_after_s}

    def _identify(self, hello: Handshake) -> Passphrase:
        parts = parse(hello.passphrase)
        if parts is None or parts.kind != KIND_PLAIN:
            raise WireError(ErrorCode.LEGACY_DISABLED, LEGACY_DISABLED)
        if parts.id not in self._registry.snapshot.passphrases:
            # Made on the command line a moment ago: an agent that is told "wrong" stays away for a quarter of an hour.
            self._registry.refresh()
        row = self._registry.snapshot.passphrases.get(parts.id)
        # The digest is computed either way: an unknown id must take as long as a wrong secret.
        genuine = self._pepper.matches(parts, row.digest if row else b"")
        if row is None or not genuine:
            raise WireError(
                ErrorCode.PASSPHRASE, "the passphrase is wrong; copy it again or make a new one on the Passphrases page"
            )
        return row

    def _register(self, hello: Handshake, observed_ip: str, passphrase: Passphrase) -> int:
        pending = sum(1 for view in self._registry.snapshot.agents.values() if view.state is State.PENDING)
        if pending >= MAX_PENDING:
            raise WireError(ErrorCode.PENDING_FULL, f"{pending} agents wait for approval; approve or reject some first")
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            if not tx.spend_use(passphrase.id, now):
                raise _why_not(tx.passphrase(passphrase.id) or passphrase, now)
            row = tx.add_agent(_new_agent(hello, observed_ip, passphrase, now))
            tx.audit(now, "agent", "agents.register", row.uid, f"{row.hostname} from {observed_ip}")
        assert row.no is not None  # noqa: S101 - saved rows have a number
        return row.no

    def _meet_again(self, view: AgentView, hello: Handshake, observed_ip: str) -> None:
        moved = (hello.ip_address, observed_ip) != (view.ip_address, view.observed_ip)
        if not moved and (hello.version, hello.legacy) == (view.version, view.legacy):
            return
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            row = tx.agent(view.no)
            if row is None:
                raise WireError(ErrorCode.STATE, "this agent was deleted just now; it may shake hands again")
            row.version, row.legacy = hello.version, hello.legacy
            if moved:
                self._move(tx, row, hello, observed_ip, now)
            elif row.state == State.APPROVED:
                # A host that changes from a legacy client to our agent joins the mesh.
                follow_agent(tx, row, self._registry.in_mesh(row), now)

    def _move(self, tx: Transaction, row: Agent, hello: Handshake, observed_ip: str, now: int) -> None:
        before = f"{row.ip_address}/{row.observed_ip}"
        if row.state == State.APPROVED:
            row.state, row.hold_reason, row.previous_ip = State.HOLD, "ip_changed", row.ip_address
            row.auth_epoch += 1
            tx.audit(now, "agent", "agents.hold", row.uid, f"{before} -> {hello.ip_address}/{observed_ip}")
        row.ip_address, row.observed_ip = hello.ip_address, observed_ip

    # -- passphrases --

    def create_passphrase(
        self, label: str, *, legacy: bool, max_uses: int, ttl_s: int, actor: str
    ) -> tuple[PassphraseView, str]:
        """A new passphrase and its clear text, which nobody can read again. Raises Invalid."""
        label = label.strip()
        if not 1 <= len(label) <= 80 or not label.isprintable():
            raise Invalid("a passphrase needs a label of 1 to 80 printable characters, such as the site it is for")
        if not 1 <= max_uses <= 100_000:
            raise Invalid(f"uses = {max_uses} is wrong: it must lie between 1 and 100000")
        if not 60 <= ttl_s <= MAX_TTL_S:
            raise Invalid(f"a lifetime of {ttl_s} s is wrong: it must lie between 1 minute and 366 days")
        parts = self._fresh(KIND_PLAIN if legacy else KIND_SEALED)
        now = self._clock.wall_ms()
        row = Passphrase(
            id=parts.id,
            label=label,
            digest=self._pepper.digest(parts),
            pepper_id=self._pepper.id,
            legacy=legacy,
            max_uses=max_uses,
            created_ms=now,
            expires_ms=now + ttl_s * 1000,
            created_by=actor,
        )
        with self._registry.change() as tx:
            tx.add_passphrase(row)
            tx.audit(now, actor, "passphrases.create", row.id, label)
        return PassphraseView.of(row), spell(parts)

    def _fresh(self, kind: str) -> Parsed:
        parts = generate(kind)
        return parts if parts.id not in self._registry.snapshot.passphrases else self._fresh(kind)

    def passphrases(self) -> list[PassphraseView]:
        """All of them, newest first."""
        return [PassphraseView.of(row) for row in self._registry.snapshot.passphrases.values()]

    def revoke_passphrase(self, passphrase_id: str, actor: str) -> PassphraseView:
        """From now on it opens nothing, also for agents that used it. Raises NotFound, Conflict."""
        known = self._registry.snapshot.passphrases.get(passphrase_id)
        if known is None:
            raise NotFound(f"there is no passphrase {passphrase_id!r}; `pingmon passphrases list` shows their ids")
        if known.revoked_ms is not None:
            raise Conflict(f"passphrase {passphrase_id} was revoked already")
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            row = tx.passphrase(passphrase_id)
            if row is not None:
                row.revoked_ms = now
            tx.audit(now, actor, "passphrases.revoke", passphrase_id, known.label)
        return PassphraseView.of(self._registry.snapshot.passphrases[passphrase_id])


def _new_agent(hello: Handshake, observed_ip: str, passphrase: Passphrase, now_ms: int) -> Agent:
    return Agent(
        uid=new_uid(now_ms),
        hostname=hello.hostname,
        passphrase_id=passphrase.id,
        state=State.PENDING,
        ip_address=hello.ip_address,
        observed_ip=observed_ip,
        version=hello.version,
        legacy=hello.legacy,
        registered_ms=now_ms,
        seen_ms=now_ms,
    )


def _why_not(passphrase: Passphrase, now_ms: int) -> WireError:
    if passphrase.revoked_ms is not None:
        return WireError(ErrorCode.PASSPHRASE_REVOKED, REVOKED)
    if passphrase.expires_ms <= now_ms:
        return WireError(ErrorCode.PASSPHRASE_EXPIRED, "this passphrase has expired; give the agent a new one")
    return WireError(
        ErrorCode.PASSPHRASE_EXHAUSTED,
        f"all {passphrase.max_uses} uses of this passphrase are spent; make one with more uses",
    )
