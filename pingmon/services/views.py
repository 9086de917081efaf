"""What the world sees of agents, targets and passphrases: frozen copies, safe to keep and to hand out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.models import Agent, Passphrase, Target
from pingmon_agent.wire.codec import encode_probe
from pingmon_agent.wire.contract import Probe, State
from pingmon_agent.wire.seal import grouped

from . import addresses
from .probes import probe_of


def seconds(ms: int | None) -> float | None:
    """Unix seconds for JSON."""
    return None if ms is None else ms / 1000


@dataclass(frozen=True, kw_only=True)
class AgentView:
    """One agent. `no` is internal; `id` is public and becomes its `agent_id` by approval."""

    no: int
    id: str
    hostname: str
    state: State
    hold_reason: str | None
    ip_address: str
    observed_ip: str
    previous_ip: str | None
    version: str
    legacy: bool
    mesh: bool
    passphrase_id: str | None
    passphrase_label: str
    revoked: bool
    first_seen_ms: int
    last_seen_ms: int
    decided_at_ms: int | None
    decided_by: str | None
    public_key: bytes | None = field(default=None, repr=False)
    key_fpr: str | None = None
    allowed: tuple[str, ...] = ()
    observed_ignored: bool = False
    auth_epoch: int = 1
    revision: int = 1
    legacy_until_ms: int | None = None
    same_name_as: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Agent, passphrase: Passphrase | None, same_name_as: tuple[str, ...]) -> AgentView:
        """A view of a saved row; `revoked`: the passphrase by which a keyless agent is known opens nothing any more."""
        assert row.no is not None  # noqa: S101 - saved rows have a number
        return cls(
            no=row.no,
            id=row.uid,
            hostname=row.hostname,
            state=State(row.state),
            hold_reason=row.hold_reason,
            ip_address=row.ip_address,
            observed_ip=row.observed_ip,
            previous_ip=row.previous_ip,
            version=row.version,
            legacy=row.legacy,
            mesh=row.mesh,
            passphrase_id=row.passphrase_id,
            passphrase_label=passphrase.label if passphrase else "",
            revoked=passphrase is not None and passphrase.revoked_ms is not None and row.key_fingerprint is None,
            first_seen_ms=row.registered_ms,
            last_seen_ms=row.seen_ms,
            decided_at_ms=row.decided_ms,
            decided_by=row.decided_by,
            public_key=row.public_key,
            key_fpr=row.key_fingerprint,
            allowed=addresses.unpack(row.allowed),
            observed_ignored=row.observed_ignored,
            auth_epoch=row.auth_epoch,
            revision=row.revision,
            legacy_until_ms=passphrase.legacy_until_ms if passphrase and row.key_fingerprint is None else None,
            same_name_as=same_name_as,
        )

    def as_json(self) -> dict[str, Any]:
        """For API and command line; times are unix seconds."""
        return {
            "id": self.id,
            "agent_id": self.id if self.decided_at_ms is not None else None,
            "hostname": self.hostname,
            "state": str(self.state),
            "hold_reason": self.hold_reason,
            "ip_address": self.ip_address,
            "observed_ip": self.observed_ip,
            "previous_ip": self.previous_ip,
            "version": self.version,
            "legacy": self.legacy,
            "mesh": self.mesh,
            "passphrase_id": self.passphrase_id,
            "passphrase_label": self.passphrase_label,
            "passphrase_revoked": self.revoked,
            "first_seen": seconds(self.first_seen_ms),
            "last_seen": seconds(self.last_seen_ms),
            "decided_at": seconds(self.decided_at_ms),
            "decided_by": self.decided_by,
            "key_fpr": self.key_fpr,
            "fingerprint": grouped(self.key_fpr) if self.key_fpr else None,
            "allowed": list(self.allowed),
            "observed": "ignore" if self.observed_ignored else "check",
            "revision": self.revision,
            "legacy_until": seconds(self.legacy_until_ms),
            "same_name_as": list(self.same_name_as),
        }


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """One target; `agent_id` is set where it is an approved agent (the mesh)."""

    id: int
    name: str
    address: str
    agent_no: int | None
    agent_id: str | None
    probe: Probe

    @classmethod
    def of(cls, row: Target, agent_id: str | None) -> TargetView:
        """A view of a saved row."""
        assert row.id is not None  # noqa: S101 - saved rows have a number
        probe = probe_of(row.probe)
        return cls(id=row.id, name=row.name, address=row.address, agent_no=row.agent_no, agent_id=agent_id, probe=probe)

    def as_json(self) -> dict[str, Any]:
        """For API and command line; `probe` holds what differs from the standard probe."""
        return {
            "id": self.id,
            "name": self.name,
            "address": self.address,
            "agent_id": self.agent_id,
            "probe": encode_probe(self.probe),
        }


@dataclass(frozen=True, kw_only=True)
class SetView:
    """What one agent pings under one revision, in column order; a target probed several times stands there as often."""

    revision: int
    target_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PassphraseView:
    """One passphrase, without its secret."""

    id: str
    label: str
    legacy: bool
    max_uses: int
    uses: int
    created_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int | None
    created_by: str
    networks: tuple[str, ...] = ()
    legacy_until_ms: int | None = None

    @classmethod
    def of(cls, row: Passphrase) -> PassphraseView:
        """A view of a saved row."""
        return cls(
            id=row.id,
            label=row.label,
            legacy=row.legacy,
            max_uses=row.max_uses,
            uses=row.uses,
            created_at_ms=row.created_ms,
            expires_at_ms=row.expires_ms,
            revoked_at_ms=row.revoked_ms,
            created_by=row.created_by,
            networks=addresses.unpack(row.networks),
            legacy_until_ms=row.legacy_until_ms,
        )

    def state_at(self, now_ms: int) -> str:
        """usable, expired, used up or revoked."""
        if self.revoked_at_ms is not None:
            return "revoked"
        if self.expires_at_ms <= now_ms:
            return "expired"
        return "used up" if self.uses >= self.max_uses else "usable"

    @property
    def state(self) -> str:
        """The state right now."""
        return self.state_at(time.time_ns() // 1_000_000)

    def as_json(self) -> dict[str, Any]:
        """For API and command line; times are unix seconds."""
        return {
            "id": self.id,
            "label": self.label,
            "legacy": self.legacy,
            "max_uses": self.max_uses,
            "uses": self.uses,
            "created_at": seconds(self.created_at_ms),
            "created_by": self.created_by,
            "expires_at": seconds(self.expires_at_ms),
            "revoked_at": seconds(self.revoked_at_ms),
            "networks": list(self.networks),
            "legacy_until": seconds(self.legacy_until_ms),
            "state": self.state,
        }
