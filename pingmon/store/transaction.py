"""What may be read and changed in one transaction of the directory: agents, targets, passphrases, audit.

Must not know: what the states mean, sockets, Flask, how a transaction begins and ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import delete, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from .models import Agent, Audit, DirectoryRevision, Passphrase, Target, TargetRefusals, TargetSet

Row = TypeVar("Row", Agent, Target)


def pack_ids(ids: Sequence[int]) -> bytes:
    """Target ids as int32, the form in which a set is kept."""
    return array("i", ids).tobytes()


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """The ids of a kept set, in column order."""
    ids = array("i")
    ids.frombytes(data)
    return tuple(ids)


class Transaction:
    """What may be read or changed in one short transaction. Rows are live: setting a field saves it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # -- agents --

    def agents(self) -> list[Agent]:
        """All agents that were not deleted, oldest first."""
        return list(self._session.exec(select(Agent).where(col(Agent.deleted_ms).is_(None)).order_by(col(Agent.no))))

    def agent(self, no: int) -> Agent | None:
        """One agent that was not deleted."""
        agent = self._session.get(Agent, no)
        return agent if agent is not None and agent.deleted_ms is None else None

    def versions(self) -> dict[int, str]:
        """What each agent that was not deleted said it runs, by its number."""
        query = select(Agent.no, Agent.version).where(col(Agent.deleted_ms).is_(None))
        return {no: version for no, version in self._session.exec(query) if no is not None}

    def add_agent(self, agent: Agent) -> Agent:
        """Save a new agent; its `no` is known afterwards."""
        return self._add(agent)

    def known_hostnames(self) -> set[str]:
        """Hostnames whose agent had a key and was approved once, deleted ones as well."""
        keyed, approved = col(Agent.key_fingerprint).is_not(None), col(Agent.approved_ms).is_not(None)
        return set(self._session.exec(select(Agent.hostname).where(keyed, approved).distinct()))

    def with_key(self, fingerprint: str) -> list[Agent]:
        """Every agent that ever had this key, deleted ones as well, oldest first."""
        return list(
            self._session.exec(select(Agent).where(Agent.key_fingerprint == fingerprint).order_by(col(Agent.no)))
        )

    # -- targets --

    def targets(self, removed: bool = False) -> list[Target]:
        """Targets in the order they were made; with `removed` also those that are gone."""
        query = select(Target).order_by(col(Target.id))
        return list(self._session.exec(query if removed else query.where(col(Target.removed_ms).is_(None))))

    def target(self, target_id: int) -> Target | None:
        """One target that was not removed."""
        target = self._session.get(Target, target_id)
        return target if target is not None and target.removed_ms is None else None

    def add_target(self, target: Target) -> Target:
        """Save a new target; its `id` is known afterwards."""
        return self._add(target)

    def add_targets(self, targets: Sequence[Target]) -> None:
        """Save many at once, in this order; their ids are known afterwards."""
        self._session.add_all(targets)
        self._session.flush()

    def latest_sets(self) -> dict[int, TargetSet]:
        """The newest target set of each agent number."""
        newest = select(TargetSet.agent_no, func.max(TargetSet.revision)).group_by(col(TargetSet.agent_no)).subquery()
        query = select(TargetSet).join(
            newest, (col(TargetSet.agent_no) == newest.c[0]) & (col(TargetSet.revision) == newest.c[1])
        )
        return {row.agent_no: row for row in self._session.exec(query)}

    def target_set(self, agent_no: int, revision: int) -> TargetSet | None:
        """The set an agent had under this revision."""
        return self._session.get(TargetSet, (agent_no, revision))

    def sets_of(self, agent_no: int) -> list[TargetSet]:
        """All sets of an agent that are still kept, in order."""
        query = select(TargetSet).where(TargetSet.agent_no == agent_no).order_by(col(TargetSet.revision))
        return list(self._session.exec(query))

    def add_target_set(self, row: TargetSet) -> None:
        """Keep a new revision of an agent's set."""
        self._session.add(row)

    def drop_sets_replaced_before(self, created_ms: int) -> int:
        """Forget sets of which a later one is older than this: no stored round can still need them."""
        newer = aliased(TargetSet)
        successor = select(newer).where(
            newer.agent_no == TargetSet.agent_no,
            newer.revision > TargetSet.revision,  # after a restore numbers go on far above
            newer.created_ms < created_ms,
        )
        gone = self._session.execute(delete(TargetSet).where(successor.exists()))
        return int(gone.rowcount)  # type: ignore[attr-defined]

    def refusals(self) -> list[TargetRefusals]:
        """What each agent refuses to ping."""
        return list(self._session.exec(select(TargetRefusals)))

    def save_refusals(self, agent_no: int, at_ms: int, refused: str) -> None:
        """Keep the newest word of an agent."""
        self._session.merge(TargetRefusals(agent_no=agent_no, at_ms=at_ms, refused=refused))

    # -- passphrases --

    def passphrases(self) -> list[Passphrase]:
        """All passphrases ever made, newest first."""
        return list(self._session.exec(select(Passphrase).order_by(col(Passphrase.created_ms).desc())))

    def passphrase(self, passphrase_id: str) -> Passphrase | None:
        """One passphrase."""
        return self._session.get(Passphrase, passphrase_id)

    def add_passphrase(self, row: Passphrase) -> None:
        """Save a new passphrase."""
        self._session.add(row)

    def spend_use(self, passphrase_id: str, now_ms: int) -> bool:
        """Count one use if the passphrase still may be used; False if not (then nothing changed)."""
        spent = self._session.execute(
            update(Passphrase)
            .where(
                col(Passphrase.id) == passphrase_id,
                col(Passphrase.uses) < col(Passphrase.max_uses),
                col(Passphrase.expires_ms) > now_ms,
                col(Passphrase.revoked_ms).is_(None),
            )
            .values(uses=Passphrase.uses + 1)
        )
        return bool(spent.rowcount == 1)  # type: ignore[attr-defined]

    # -- bookkeeping --

    def audit(self, at_ms: int, actor: str, action: str, subject: str, detail: str | None = None) -> None:
        """Append one line to the audit table, in this same transaction."""
        self._session.add(Audit(at_ms=at_ms, actor=actor, action=action, subject=subject, detail=detail))

    def decisions(self) -> list[tuple[str, int, str]]:
        """All that was ever decided about agents, in order: (agent's uid, unix ms, action)."""
        query = select(Audit.subject, Audit.at_ms, Audit.action).order_by(col(Audit.id))
        rows = self._session.exec(query.where(col(Audit.action).startswith("agents.")))
        return [(subject, at_ms, action) for subject, at_ms, action in rows]

    def revision(self) -> int:
        """The number that rises with each change."""
        row = self._session.get(DirectoryRevision, 1)
        return row.revision if row else 0

    def changed(self) -> None:
        """Say that running servers must read the directory again."""
        row = self._session.get(DirectoryRevision, 1) or DirectoryRevision(id=1, revision=0)
        row.revision += 1
        self._session.add(row)

    def rewrite_revision(self) -> None:
        """Write the number of the directory's revision as it is."""
        done = self._session.execute(update(DirectoryRevision).values(revision=DirectoryRevision.revision))
        if not done.rowcount:  # type: ignore[attr-defined]
            self._session.add(DirectoryRevision(id=1, revision=0))

    def flush(self) -> None:
        """Send what was changed so far to the database, inside the transaction."""
        self._session.flush()

    def _add(self, row: Row) -> Row:
        self._session.add(row)
        self._session.flush()
        return row
