"""Was it down, or did we not look? What arrived of one agent or pair, what did not, and why, for any time and at once.

Brings together what the ledger keeps and what was decided about agents and targets. Must not know: SQL, HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pingmon.concurrency import run_blocking
from pingmon.store.directory import Directory, unpack_ids
from pingmon.store.ledger import Kept, LedgerFile
from pingmon.store.rounds import StoreError
from pingmon.store.slots import HOUR_MS
from pingmon_agent.wire.contract import State

from .account import Account, Facts, Gap, Spans, Totals, Window
from .book import LAPSE_S
from .clock import Clock
from .errors import Invalid, Unavailable
from .reasons import WORDS, NotExpected, Reason
from .registry import Registry
from .views import AgentView

Json = dict[str, Any]
DAY_MS = 24 * HOUR_MS
KEEP_MS = 31 * DAY_MS
# A round that is not there by now counts as missing (so far): what comes later than this is late.
PATIENCE_ROUNDS = 3
FOREVER_MS = 2**53
_STATE_AFTER = {
    "agents.register": State.PENDING,
    "agents.approve": State.APPROVED,
    "agents.release": State.APPROVED,
    "agents.hold": State.HOLD,
    "agents.reject": State.BLACKLISTED,
}
Timeline = list[tuple[int, State]]


class Completeness:
    """Reads; decides nothing."""

    def __init__(self, file: LedgerFile, registry: Registry, directory: Directory, clock: Clock) -> None:
        self._file, self._registry, self._directory, self._clock = file, registry, directory, clock
        self._interval_ms = round(registry.interval_s * 1000)
        self._decisions: tuple[int, dict[str, Timeline]] = (-1, {})

    # -- answers --

    def agent(self, ref: str, from_s: float | None = None, to_s: float | None = None) -> Json:
        """One agent's account as JSON. Raises NotFound, Conflict, Invalid, Unavailable."""
        view = self._registry.agent(ref)
        span = self._span(from_s, to_s)
        return {"agent": view.hostname} | self._as_json(self._accounts([view], span)[view.no], span)

    def pair(self, agent_ref: str, target_ref: str, from_s: float | None = None, to_s: float | None = None) -> Json:
        """The same for one pair: the agent's rounds while it had this target. Raises as `agent`."""
        view, target = self._registry.agent(agent_ref), self._registry.target(target_ref)
        span = self._span(from_s, to_s)
        had = self._times_of(view.no, target.id)
        account = self._accounts([view], span, had)[view.no]
        return {"agent": view.hostname, "target": target.name} | self._as_json(account, span)

    def totals(self, views: Sequence[AgentView], back_ms: int) -> dict[int, Totals]:
        """Totals of the time up to now, by agent number. Raises Unavailable."""
        now = self._clock.wall_ms()
        return {no: account.totals() for no, account in self._accounts(views, (now - back_ms, now)).items()}

    def line(self, view: AgentView) -> str:
        """The last 24 hours of an agent in one line. Raises Unavailable."""
        totals = self.totals([view], DAY_MS)[view.no]
        parts = [f"{totals.expected} expected, {totals.received} received ({totals.late} late)"]
        parts.append(f"{totals.missing} missing")
        why = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in totals.reasons.items() if n)
        return "rounds of the last 24 h: " + ", ".join(parts) + (f" ({why})" if why else "")

    # -- facts --

    def _span(self, from_s: float | None, to_s: float | None) -> tuple[int, int]:
        now = self._clock.wall_ms()
        to_ms = now if to_s is None else min(round(to_s * 1000), now)
        from_ms = to_ms - DAY_MS if from_s is None else round(from_s * 1000)
        if not 0 <= from_ms < to_ms:
            raise Invalid("`from` must lie before `to` and before now; give both as unix seconds")
        if to_ms - from_ms > KEEP_MS:
            raise Invalid("at most 31 days can be asked for at once; choose a later `from`")
        return from_ms, to_ms

    def _accounts(
        self, views: Sequence[AgentView], span: tuple[int, int], had: Spans | None = None
    ) -> dict[int, Account]:
        settled_ms = self._clock.wall_ms() - PATIENCE_ROUNDS * self._interval_ms
        window = Window.of(span[0], min(span[1], settled_ms), self._interval_ms)
        timelines = [(view, self._timeline(view)) for view in views]

        def bring_together() -> dict[int, Account]:
            kept = self._file.kept([view.no for view in views], *span, self._interval_ms)
            return {view.no: Account(self._facts(view, timeline, window, kept, had)) for view, timeline in timelines}

        try:
            return run_blocking(bring_together)  # 0.1 ms an agent: a thousand of them would stall the hub
        except StoreError as error:
            raise Unavailable(f"the sample database cannot be read ({error}); try again once it can") from error

    def _facts(self, view: AgentView, timeline: Timeline, window: Window, kept: Kept, had: Spans | None) -> Facts:
        received = kept.received[view.no]
        since = FOREVER_MS if kept.since_ms is None else kept.since_ms
        due = _during(timeline, State.APPROVED, State.HOLD)
        expected = _both(due, [(since, FOREVER_MS)])
        held = _during(timeline, State.HOLD) + self._revoked(view)
        reasons: dict[Reason, Spans] = {Reason.HELD: held, Reason.SERVER_AWAY: self._away(kept)}
        for reason in (Reason.REJECTED, Reason.RING_EXPIRED, Reason.CLOCK):
            reasons[reason] = [(a, b) for no, a, b, why in kept.gaps if no == view.no and why == reason]
        causes = [(NotExpected.NOT_APPROVED, _others(due)), (NotExpected.NO_LEDGER, [(0, since)])]
        if had is not None:
            expected, received = _both(expected, had), received & window.touched(had)
            causes.append((NotExpected.NOT_A_TARGET, _others(had)))
        return Facts(window, received, kept.late[view.no], expected, causes, reasons)

    def _away(self, kept: Kept) -> Spans:
        ups = list(kept.ups)
        # Between two beats the server of this very moment is up, too.
        if ups and self._clock.wall_ms() - ups[-1][1] <= LAPSE_S * 1000:
            ups[-1] = (ups[-1][0], FOREVER_MS)
        return _others(ups)

    def _revoked(self, view: AgentView) -> list[tuple[int, int]]:
        row = self._registry.snapshot.passphrases.get(view.passphrase_id or "")
        return [(row.revoked_ms, FOREVER_MS)] if row is not None and row.revoked_ms is not None else []

    def _timeline(self, view: AgentView) -> Timeline:
        revision = self._registry.snapshot.revision
        if self._decisions[0] != revision:
            self._decisions = (revision, self._read_decisions())
        known = self._decisions[1].get(view.id, [])
        # A directory filled by hand has no audit lines: then what is now was so since it was decided.
        return known or [(view.decided_at_ms or view.first_seen_ms, view.state)]

    def _read_decisions(self) -> dict[str, Timeline]:
        with self._directory.reading() as tx:
            rows = tx.decisions()
        timelines: dict[str, Timeline] = {}
        for uid, at_ms, action in rows:
            if action in _STATE_AFTER:
                timelines.setdefault(uid, []).append((at_ms, _STATE_AFTER[action]))
        return timelines

    def _times_of(self, agent_no: int, target_id: int) -> Spans:
        """When the agent had this target; what was before the oldest set that is kept was as that one."""
        with self._directory.reading() as tx:
            sets = [(row.created_ms, row.revision, unpack_ids(row.target_ids)) for row in tx.sets_of(agent_no)]
        starts = [0 if i == 0 and revision > 1 else made for i, (made, revision, _) in enumerate(sets)]
        spans = pairwise([*starts, FOREVER_MS])
        return _joined([span for span, (_, _, ids) in zip(spans, sets, strict=True) if target_id in ids])

    # -- as JSON --

    def _as_json(self, account: Account, span: tuple[int, int]) -> Json:
        hours = range(span[0] // HOUR_MS * HOUR_MS, span[1], HOUR_MS)
        parts = [(max(hour, span[0]), min(hour + HOUR_MS, span[1])) for hour in hours]
        return {
            "from": span[0] / 1000,
            "to": span[1] / 1000,
            "interval_s": self._registry.interval_s,
            **_totals_json(account.totals()),
            "hours": [{"from": a / 1000, "to": b / 1000, **_totals_json(account.totals(a, b))} for a, b in parts],
            "gaps": [_gap_json(gap) for gap in account.gaps()],
            "not_expected": [_gap_json(gap) for gap in account.pauses()],
        }


def _totals_json(totals: Totals) -> Json:
    return {
        "expected": totals.expected,
        "received": totals.received,
        "late": totals.late,
        "missing": totals.missing,
        "reasons": dict(totals.reasons),
    }


def _gap_json(gap: Gap) -> Json:
    text = WORDS[gap.reason]
    span = {"from": gap.from_ms / 1000, "to": gap.to_ms / 1000, "rounds": gap.rounds}
    return span | {"reason": str(gap.reason), "text": text}


def _during(timeline: Timeline, *states: State) -> list[tuple[int, int]]:
    ends = [at_ms for at_ms, _ in timeline[1:]] + [FOREVER_MS]
    return _joined([(at_ms, end) for (at_ms, state), end in zip(timeline, ends, strict=True) if state in states])


def _joined(spans: Spans) -> list[tuple[int, int]]:
    """Spans in order, those that touch made one: a slot may lie across the seam."""
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        touches = bool(joined) and joined[-1][1] >= begin
        joined.append((joined.pop()[0] if touches else begin, end))
    return joined


def _others(spans: Spans) -> list[tuple[int, int]]:
    """All time outside of these spans, which are in order and apart."""
    edges = [0, *(edge for span in spans for edge in span), FOREVER_MS]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def _both(one: Spans, other: Spans) -> list[tuple[int, int]]:
    common = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return [(a, b) for a, b in common if a < b]
