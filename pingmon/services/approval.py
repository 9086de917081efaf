"""Decisions about agents: who is let in, held, sent away, forgotten. Each is one transaction with its audit line.

An agent is a key that somebody approved; what is decided about one key never touches another. Must not know: sockets,
Flask, samples, how a key was proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pingmon.store.directory import Transaction
from pingmon.store.models import Agent
from pingmon_agent.wire.contract import State

from . import addresses
from . import targets as rules
from .errors import Conflict, NotFound
from .mirror import Mirror
from .revocations import ADMITTED, DELETED, HELD, REJECTED, Revocation, Revocations
from .views import AgentView, seconds

PENDING_TTL_S = 72 * 3600
WANTED = {REJECTED: State.BLACKLISTED, HELD: State.HOLD}
REPLAY = "revocations.log"
MOVED = "ip_changed"
REVOKING = {State.BLACKLISTED: REJECTED, State.HOLD: HELD, State.APPROVED: ADMITTED}


@dataclass(frozen=True)
class Expected:
    """What somebody saw before deciding; None where nobody looked."""

    key_fpr: str | None = None
    revision: int | None = None

    def check(self, key_fpr: str | None, revision: int, hostname: str) -> None:
        """Raises Conflict where it is something else by now."""
        if self.key_fpr is not None and self.key_fpr != key_fpr:
            raise Conflict(f"{hostname} shows another key by now ({key_fpr}): compare fingerprints again, then decide")
        if self.revision is not None and self.revision != revision:
            raise Conflict(f"{hostname} has changed since you looked (revision {revision}): look again, then decide")


ANYTHING = Expected()


class Approvals(Mirror):
    """Decisions, on top of the copy in memory that everybody reads. Each raises NotFound, Conflict."""

    revocations: Revocations | None = None

    def approve(self, ref: str, actor: str, expected: Expected = ANYTHING) -> AgentView:
        """pending or blacklisted -> approved; nothing happens to an approved one."""
        view = self._latest(ref)
        if view.state is State.APPROVED:
            expected.check(view.key_fpr, view.revision, view.hostname)
            return view
        if view.state is State.HOLD:
            raise Conflict(f"{view.hostname} is on hold ({view.hold_reason}); release it instead")
        rival = self.measuring(view.hostname)
        if rival is not None:
            raise Conflict(
                f"another agent called {view.hostname} is approved already ({rival.id}); delete or reject that one "
                f"first, or make this one its new key: `pingmon agents rekey {rival.id} {view.id}`"
            )
        return self._decide(view, State.APPROVED, actor, "agents.approve", expected=expected)

    def reject(self, ref: str, actor: str) -> AgentView:
        """Any state -> blacklisted: it may not come back until somebody approves it."""
        return self._decide(self._latest(ref), State.BLACKLISTED, actor, "agents.reject", "operator")

    def reject_pending(self, passphrase_id: str, actor: str) -> list[AgentView]:
        """Reject everybody who waits for approval with this passphrase."""
        self.refresh()
        waiting = [v for v in self.agents() if v.state is State.PENDING and v.passphrase_id == passphrase_id]
        return [self.reject(view.id, actor) for view in waiting]

    def hold(self, ref: str, actor: str) -> AgentView:
        """approved -> hold: it keeps measuring, but nothing is taken from it."""
        view = self._latest(ref)
        if view.state is not State.APPROVED:
            raise Conflict(f"{view.hostname} is {view.state}; only an approved agent can be put on hold")
        return self._decide(view, State.HOLD, actor, "agents.hold", "operator")

    def release(self, ref: str, actor: str, *, always: bool = False) -> AgentView:
        """hold -> approved, with the address it has now: until it moves again, or `always`."""
        view = self._latest(ref)
        if view.state is not State.HOLD:
            raise Conflict(f"{view.hostname} is {view.state}; only an agent on hold can be released")
        return self._decide(
            view, State.APPROVED, actor, "agents.release", change=remember_addresses if always else None
        )

    def rekey(self, ref: str, with_ref: str, actor: str, expected: Expected = ANYTHING) -> AgentView:
        """Give an approved or held agent the key of a pending one (`expected`), which goes: id and history stay."""
        old, new = self._latest(ref), self.agent(with_ref)
        if old.state not in rules.MEASURING or new.state is not State.PENDING or new.key_fpr is None:
            raise Conflict(f"{old.hostname} is {old.state} and {new.id} is {new.state}; re-keying takes an approved or "
                           "held agent and a pending one that shows its key")  # fmt: skip
        if old.hostname != new.hostname:
            raise Conflict(f"{new.id} is called {new.hostname}, not {old.hostname}; approve it as an agent of its own")

        def take_key(tx: Transaction, row: Agent) -> None:
            source = self._row(tx, new.no)
            expected.check(source.key_fingerprint, source.revision, source.hostname)
            source.deleted_ms = self._clock.wall_ms()
            tx.flush()
            row.public_key, row.key_fingerprint, row.legacy = source.public_key, source.key_fingerprint, False
            row.ip_address, row.observed_ip, row.version = source.ip_address, source.observed_ip, source.version
            remember_addresses(tx, row)

        return self._decide(old, State.APPROVED, actor, "agents.rekey", change=take_key, detail=f"key {new.key_fpr}")

    def set_addresses(
        self, ref: str, actor: str, allowed: Iterable[str] | None = None, observed_ignored: bool | None = None
    ) -> AgentView:
        """From which addresses and networks an agent may come; raises Invalid."""
        view = self._latest(ref)
        entries = view.allowed if allowed is None else tuple(addresses.check_entries(allowed))
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = self._row(tx, view.no)
            row.allowed = addresses.pack(entries)
            row.observed_ignored = view.observed_ignored if observed_ignored is None else observed_ignored
            row.revision += 1
            observed = "ignored" if row.observed_ignored else "checked"
            tx.audit(now, actor, "agents.addresses", row.uid, f"{', '.join(entries)}; observed {observed}")
        return self.snapshot.agents[view.no]

    def delete(self, ref: str, actor: str) -> AgentView:
        """Forget an agent; with a valid passphrase it may ask again. Its samples stay until they expire."""
        view = self._latest(ref)
        with self.change() as tx:
            row = self._row(tx, view.no)
            row.deleted_ms = self._clock.wall_ms()
            rules.follow_agent(tx, row, False, row.deleted_ms)
            tx.audit(row.deleted_ms, actor, "agents.delete", view.id, view.hostname)
            now = row.deleted_ms
        self._note(view, DELETED, now)
        return view

    def replay_revocations(self) -> list[str]:
        """Shut out again who is in, because the database is older than the decision; returns their hostnames."""
        done = []
        for entry in (self.revocations.standing() if self.revocations else {}).values():
            view = next((a for a in self.agents() if a.id == entry.agent_id), None)
            if view is None or entry.action == ADMITTED:
                continue
            if entry.action == DELETED:
                self.delete(view.id, REPLAY)
            elif (view.decided_at_ms or 0) < entry.at_ms and view.state is not WANTED[entry.action]:
                self._decide(view, WANTED[entry.action], REPLAY, f"agents.{entry.action}", "operator")
            else:
                continue
            done.append(view.hostname)
        return done

    def evidence(self, ref: str) -> dict[str, Any]:
        """What somebody looks at before approving: plain data, times unix seconds. Raises NotFound, Conflict.

        The agent as `describe` has it, and `same_name`: other agents of its name; `same_key`: deleted agents that had
        its key; `adds`: pings per second and series that come with it.
        """
        view = self._latest(ref)
        others = [self.describe(a) for a in self.agents() if a.hostname == view.hostname and a.no != view.no]
        with self._directory.reading() as tx:
            had = [row for row in tx.with_key(view.key_fpr or "") if row.deleted_ms is not None]
        gone = [{"id": row.uid, "hostname": row.hostname, "deleted_at": seconds(row.deleted_ms)} for row in had]
        return self.describe(view) | {"same_name": others, "same_key": gone, "adds": self._adds(view)}

    def _adds(self, view: AgentView) -> dict[str, float]:
        """Its own probes, and in a mesh one more for each who measures already."""
        columns = sum(target.probe.columns for target in self.targets() if target.agent_no != view.no)
        if self.mesh and view.mesh and not view.legacy:
            columns += sum(a.state in rules.MEASURING for a in self.agents() if a.no != view.no)
        return {"series": columns, "pings_per_s": columns / self.interval_s}

    def expire_pending(self) -> int:
        """Forget requests that nobody decided about for 72 hours; how many."""
        now = self._clock.wall_ms()
        since = now - PENDING_TTL_S * 1000
        old = [v for v in self.agents() if v.state is State.PENDING and v.first_seen_ms <= since]
        if not old:
            return 0
        with self.change() as tx:
            for row in filter(None, [tx.agent(view.no) for view in old]):
                if row.state == State.PENDING:
                    row.deleted_ms = now
                    tx.audit(now, "server", "agents.expire", row.uid, row.hostname)
        return len(old)

    # -- how --

    def measuring(self, hostname: str) -> AgentView | None:
        """The agent of this name that is approved or on hold."""
        found = (a for a in self.agents() if a.hostname == hostname and a.state in rules.MEASURING)
        return next(found, None)

    def _latest(self, ref: str) -> AgentView:
        """Decide on what is, not on what was a second ago: the command line writes too."""
        self.refresh()
        return self.agent(ref)

    def _decide(
        self,
        view: AgentView,
        state: State,
        actor: str,
        action: str,
        reason: str | None = None,
        *,
        expected: Expected = ANYTHING,
        change: Callable[[Transaction, Agent], None] | None = None,
        detail: str = "",
    ) -> AgentView:
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = self._row(tx, view.no)
            expected.check(row.key_fingerprint, row.revision, row.hostname)
            if change is not None:
                change(tx, row)
            enter(tx, row, state, reason, now)
            self._record(tx, row, now, actor, action, detail)
        self._note(view, REVOKING[state], now)
        return self.snapshot.agents[view.no]

    def _note(self, view: AgentView, action: str, at_ms: int) -> None:
        if self.revocations is not None:
            self.revocations.note(Revocation(at_ms, view.id, view.hostname, action))

    def _record(self, tx: Transaction, row: Agent, now_ms: int, actor: str, action: str, detail: str = "") -> None:
        """Who decided, and what follows for everybody's targets."""
        self._record_all(tx, [(row, detail)], now_ms, actor, action)

    def _record_all(
        self, tx: Transaction, rows: Sequence[tuple[Agent, str]], now_ms: int, actor: str, action: str
    ) -> None:
        """The same for many agents at once, each with a detail for the audit."""
        for row, detail in rows:
            row.decided_ms, row.decided_by = now_ms, actor
            tx.audit(now_ms, actor, action, row.uid, f"{row.hostname} {detail}".strip())
        moved = rules.follow_agents(tx, [(row, self.in_mesh(row)) for row, _ in rows], now_ms)
        rules.renew_sets(tx, now_ms, moved)

    def in_mesh(self, row: Agent) -> bool:
        """Whether the others ping this agent."""
        wanted = self.mesh and row.mesh and not row.legacy and row.state in rules.MEASURING
        return wanted and self.rules.why_not_in_mesh(row.ip_address, row.observed_ip) is None

    @staticmethod
    def _row(tx: Transaction, agent_no: int) -> Agent:
        row = tx.agent(agent_no)
        if row is None:
            raise NotFound("the agent was deleted in the meantime; load the list again")
        return row


def enter(tx: Transaction, row: Agent, state: State, reason: str | None, now_ms: int) -> None:
    """Another state; who is approved for the first time may come from where it is now."""
    row.state, row.hold_reason = state, reason
    row.auth_epoch += 1
    row.revision += 1
    if state is not State.APPROVED:
        return
    row.previous_ip = None
    if row.approved_ms is None:
        row.approved_ms = now_ms
    if not addresses.unpack(row.allowed):
        remember_addresses(tx, row)


def remember_addresses(_tx: Transaction, row: Agent) -> None:
    """The addresses that it has now belong to it from now on."""
    seen = [row.ip_address] if row.observed_ignored else [row.ip_address, row.observed_ip]
    row.allowed = addresses.pack(addresses.check_entries([*addresses.unpack(row.allowed), *seen]))
