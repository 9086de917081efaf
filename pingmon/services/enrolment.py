"""Enrolment: what a handshake means. pending -> approved -> hold; an agent is a key that somebody approved.

Works on the registry's copy in memory; the database is touched only where something changes, so that a whole fleet may
come back at once. Must not know: sockets, Flask, how a passphrase is sealed (challenge.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
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
from pingmon_agent.wire.seal import Proof, check_login

from . import addresses
from . import targets as rules
from .approval import MOVED
from .challenge import Gate, Said, Visit
from .clock import Clock
from .ids import new_uid
from .issuing import LEGACY_OVER, REVOKED, Passphrases, why_not
from .passphrases import Pepper
from .registry import Registry
from .views import AgentView

Json = dict[str, Any]
MAX_PENDING = 500
MAX_PENDING_PER_HOUR = 20  # of one passphrase
RETRY_S = {State.PENDING: 60, State.HOLD: 60, State.BLACKLISTED: 3600}
DUPLICATE = "duplicate_identity"
DUPLICATE_AGAIN_MS = 600_000  # it asks every minute; that needs no line each


@dataclass(frozen=True)
class Greeting:
    """Who shook hands; the answer follows from the agent's state. `inst` is the agent's process, "" of legacy ones."""

    agent_no: int
    hello: Handshake
    inst: str = ""


class Enrolment(Passphrases):
    """Handshakes, and the passphrases they bring."""

    def __init__(self, registry: Registry, pepper: Pepper, gate: Gate, clock: Clock) -> None:
        super().__init__(registry, pepper, clock, gate.identity.pin)
        self.gate = gate

    def hear(self, visit: Visit, data: object) -> Json | Greeting:
        """The payload of `handshake`: a challenge to send back, or who it is; `arrive` follows once that is settled.
        Raises WireError with the code it is answered with; nobody is known any better by then."""
        said = self.gate.hear(visit, data)
        if isinstance(said, dict):
            return said
        if said.proof is None:
            greeting = self.greet(said.hello, visit.observed_ip)
        else:
            greeting = Greeting(self._admit(said, said.proof, visit.observed_ip), said.hello, said.inst)
        visit.th1 = said.proof.th1 if said.proof is not None else None
        return greeting

    # -- agents with a key --

    def _admit(self, said: Said, proof: Proof, observed_ip: str) -> int:
        no = self._registry.snapshot.by_key.get(proof.fingerprint)
        if no is None:
            self._registry.refresh()  # approved on the command line a moment ago
            no = self._registry.snapshot.by_key.get(proof.fingerprint)
        if not proof.public:
            self._check_login(proof, no)
        passphrase = self.sealed(proof.passphrase) if proof.public else None
        self._check_channel(said)  # last: only who proved something gets a line into the audit
        if no is None:
            assert passphrase is not None  # noqa: S101 - a login with an unknown key has been refused
            return self._register(said.hello, observed_ip, passphrase, proof)
        return no

    def arrive(self, greeting: Greeting, observed_ip: str) -> None:
        """An agent with a key is here, and no other machine is it: it may have moved. Raises WireError."""
        view = self._registry.snapshot.agents.get(greeting.agent_no)
        if greeting.inst and view is not None:
            self._meet_again(view, greeting.hello, observed_ip)
            self._registry.touch(view.no)

    def _check_login(self, proof: Proof, no: int | None) -> None:
        view = self._registry.snapshot.agents.get(no or 0)
        if view is None or view.public_key is None:
            message = "this key is not known here; give the agent a passphrase, or approve its key beforehand"
            raise WireError(ErrorCode.UNKNOWN_KEY, message)
        check_login(proof, view.public_key)

    def _check_channel(self, said: Said) -> None:
        """The one refusal that means an attack: it leaves a line in the audit."""
        try:
            self.gate.check_channel(said)
        except WireError as error:
            with self._registry.change() as tx:
                tx.audit(self._clock.wall_ms(), "agent", "agents.channel", said.hello.hostname, error.message)
            raise

    def note_duplicate(self, agent_no: int, observed_ip: str) -> None:
        """A second machine shows the key of an agent that is alive: said in the audit, and beside the agent."""
        now, view = self._clock.wall_ms(), self._registry.snapshot.agents[agent_no]
        before = self._registry.duplicates.get(agent_no, ("", 0))
        if before[0] == observed_ip and now - before[1] < DUPLICATE_AGAIN_MS:
            return
        self._registry.duplicates[agent_no] = (observed_ip, now)
        with self._registry.change() as tx:
            tx.audit(now, "agent", "agents.duplicate", view.id, f"{view.hostname} also from {observed_ip}")

    # -- legacy agents --

    def greet(self, hello: Handshake, observed_ip: str) -> Greeting:
        """Find or register the keyless agent behind a plain handshake; raises WireError."""
        passphrase = self.plain(hello.passphrase)
        until = passphrase.legacy_until_ms or 0
        if until <= self._clock.wall_ms():
            raise WireError(ErrorCode.LEGACY_DISABLED, LEGACY_OVER.format(until=_day(until)))
        if hello.hostname in self._registry.snapshot.known_hostnames:
            raise WireError(
                ErrorCode.KEY_REQUIRED,
                f"{hello.hostname} once had a key and comes back by that alone; run pingmon-agent there",
            )
        no = self._registry.snapshot.by_identity.get((hello.hostname, passphrase.id))
        if no is None:
            return Greeting(self._register(hello, observed_ip, passphrase, None), hello)
        if passphrase.revoked_ms is not None:
            raise WireError(ErrorCode.PASSPHRASE_REVOKED, REVOKED)
        self._meet_again(self._registry.snapshot.agents[no], hello, observed_ip)
        self._registry.touch(no)
        return Greeting(no, hello)

    def shut_out(self, view: AgentView) -> WireError | None:
        """Why nothing more is taken from an agent whatever its state: its passphrase opens nothing any more."""
        if view.revoked:
            return WireError(ErrorCode.PASSPHRASE_REVOKED, REVOKED)
        if view.legacy_until_ms is not None and view.legacy_until_ms <= self._clock.wall_ms():
            return WireError(ErrorCode.LEGACY_DISABLED, LEGACY_OVER.format(until=_day(view.legacy_until_ms)))
        return None

    # -- answers --

    def reply(self, agent_no: int, upto: int, visit: Visit | None = None, held: str = "") -> Json:
        """The body that tells an agent its state: answer to a handshake, and push whenever the state changes.

        Signed where `visit` belongs to an agent with a key. `held`: why this one connection is on hold.
        """
        view = self._registry.snapshot.agents.get(agent_no)
        if view is None:
            return self.error(ErrorCode.STATE, "this agent was deleted; it may shake hands again", 60)
        if (why := self.shut_out(view)) is not None:
            return self.error(why.code, why.message, 60)
        body = self._held(view, held) if held else self._body(view, upto)
        return self.gate.sign(visit.th1 if visit else None, body)

    def _held(self, view: AgentView, reason: str) -> Json:
        facts = {"state": State.HOLD, "agent_id": view.id, "reason": reason, "retry_after_s": RETRY_S[State.HOLD]}
        return facts | {"time": self._clock.wall_ms()}

    def _body(self, view: AgentView, upto: int) -> Json:
        if view.state is State.APPROVED:
            return self._approved(view, upto)
        body: Json = {"state": view.state, "retry_after_s": RETRY_S[view.state], "time": self._clock.wall_ms()}
        if view.state is State.PENDING:
            return body | {"registration_id": view.id} | ({"key_fpr": view.key_fpr} if view.key_fpr else {})
        return body | {"agent_id": view.id, "reason": view.hold_reason or "operator"}

    def _approved(self, view: AgentView, upto: int) -> Json:
        current = self._registry.snapshot.sets.get(view.no)
        limits = {
            "bytes": MAX_MESSAGE_BYTES,
            "rounds": MAX_ROUNDS_PER_REPORT,
            "samples": MAX_SAMPLES_PER_REPORT,
            "spread_s": max(1, len(self._registry.snapshot.agents) // 100),
        }
        return {
            "state": State.APPROVED,
            "agent_id": view.id,
            "auth_epoch": view.auth_epoch,
            "upto": upto,
            "targets_rev": current.revision if current else 0,
            "limits": limits,
            "time": self._clock.wall_ms(),
        }

    @staticmethod
    def error(code: ErrorCode, message: str, retry_after_s: int) -> Json:
        """The body for a handshake that was refused."""
        return {"state": State.ERROR, "code": code, "message": message, "retry_after_s": retry_after_s}

    # -- rows --

    def _register(self, hello: Handshake, observed_ip: str, passphrase: Passphrase, proof: Proof | None) -> int:
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            if not tx.spend_use(passphrase.id, now):
                raise why_not(tx.passphrase(passphrase.id) or passphrase, now)
            networks = addresses.unpack(passphrase.networks)
            if networks and not addresses.inside(observed_ip, networks):
                raise WireError(
                    ErrorCode.PASSPHRASE_SCOPE,
                    f"this passphrase is for {', '.join(networks)}, the agent comes from {observed_ip}; make another",
                )
            self._check_room(passphrase, now)
            row = tx.add_agent(_new_agent(hello, observed_ip, passphrase, proof, now))
            tx.audit(now, "agent", "agents.register", row.uid, f"{row.hostname} from {observed_ip}")
        assert row.no is not None  # noqa: S101 - saved rows have a number
        return row.no

    def _check_room(self, passphrase: Passphrase, now_ms: int) -> None:
        pending = [view for view in self._registry.agents() if view.state is State.PENDING]
        recent = sum(v.passphrase_id == passphrase.id and v.first_seen_ms > now_ms - 3_600_000 for v in pending)
        if len(pending) >= MAX_PENDING or recent >= MAX_PENDING_PER_HOUR:
            count = f"{len(pending)} agents" if len(pending) >= MAX_PENDING else f"{recent} agents of this passphrase"
            raise WireError(ErrorCode.PENDING_FULL, f"{count} wait for approval; approve or reject some first")

    def _meet_again(self, view: AgentView, hello: Handshake, observed_ip: str) -> None:
        moved = (hello.ip_address, observed_ip) != (view.ip_address, view.observed_ip)
        renamed = view.state is State.PENDING and hello.hostname != view.hostname
        if not (moved or renamed) and (hello.version, hello.legacy) == (view.version, view.legacy):
            return
        if not moved and view.state is State.APPROVED and hello.legacy == view.legacy:
            self._registry.touch_version(view.no, hello.version)
            return
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            row = tx.agent(view.no)
            if row is None:
                raise WireError(ErrorCode.STATE, "this agent was deleted just now; it may shake hands again")
            row.version, row.legacy = hello.version, hello.legacy
            if renamed:
                row.hostname = hello.hostname  # the key is who it is; whoever approves looks at the name it has now
            if moved:
                self._move(tx, row, hello, observed_ip, now)
            row.revision += 1
            if row.state == State.APPROVED:
                # It may have another address by now, or have become one of our agents and join the mesh.
                rules.renew_sets(tx, now, rules.follow_agent(tx, row, self._registry.in_mesh(row), now))

    def _move(self, tx: Transaction, row: Agent, hello: Handshake, observed_ip: str, now: int) -> None:
        before = f"{row.ip_address}/{row.observed_ip}"
        if row.state == State.APPROVED and not _may_come_from(row, hello.ip_address, observed_ip):
            row.state, row.hold_reason, row.previous_ip = State.HOLD, MOVED, row.ip_address
            row.auth_epoch += 1
            tx.audit(now, "agent", "agents.hold", row.uid, f"{before} -> {hello.ip_address}/{observed_ip}")
        row.ip_address, row.observed_ip = hello.ip_address, observed_ip


def _may_come_from(row: Agent, claimed: str, observed: str) -> bool:
    """Among its addresses, or where it is now, which somebody let pass once."""
    entries = [*addresses.unpack(row.allowed), row.ip_address, row.observed_ip]
    return addresses.inside(claimed, entries) and (row.observed_ignored or addresses.inside(observed, entries))


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def _new_agent(hello: Handshake, observed_ip: str, passphrase: Passphrase, proof: Proof | None, now_ms: int) -> Agent:
    return Agent(
        uid=new_uid(now_ms),
        hostname=hello.hostname,
        passphrase_id=passphrase.id,
        public_key=proof.public if proof else None,
        key_fingerprint=proof.fingerprint if proof else None,
        state=State.PENDING,
        ip_address=hello.ip_address,
        observed_ip=observed_ip,
        version=hello.version,
        legacy=hello.legacy,
        registered_ms=now_ms,
        seen_ms=now_ms,
    )
