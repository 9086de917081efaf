"""What was measured, over time: one pair, one agent's row, one target's column; any range, down-sampled honestly.

The last hour comes from memory, what is older from the sample store. Must not know: HTTP, files, how rounds are packed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeVar

from pingmon.concurrency import run_blocking
from pingmon.config import RetentionSection
from pingmon.store.rounds import RoundStore, StoreError
from pingmon_agent.wire.contract import status_of

from . import downsample
from .clock import Clock
from .clocks import Clocks
from .downsample import Sample
from .errors import AWAY, Invalid, Unavailable
from .recent import KEEP_MS, Recent
from .registry import Registry
from .targets import MEASURING
from .timespan import HOUR_MS, Kept, Span, parse_span
from .views import AgentView, TargetView

MAX_ROW_POINTS: Final = 250_000
MAX_RAW: Final = 100_000
# Minutes of a month would take half a second; from here on hours do, where the step is made of hours.
MINUTES_AT_MOST_MS: Final = 3 * 24 * HOUR_MS
Json = dict[str, Any]
T = TypeVar("T")


class History:
    """Reads; decides nothing."""

    def __init__(
        self,
        registry: Registry,
        recent: Recent,
        store: RoundStore,
        clock: Clock,
        clocks: Clocks,
        keep: RetentionSection,
    ) -> None:
        self._registry, self._recent, self._store = registry, recent, store
        self._clock, self._clocks, self._keep = clock, clocks, keep

    def pair(self, agent_ref: str, target_ref: str) -> Json:
        """The body of `/monitoring/<agent>/<target>`: the last hour, oldest first. Raises NotFound, Conflict.

        `timestamp` is unix seconds, `rtt_ms` null where nothing came back, `status` ok, timeout, unreachable or error.
        """
        agent, target = self._registry.agent(agent_ref), self._registry.target(target_ref)
        rows = self._recent.pair(agent.no, target.id, self._clock.wall_ms() - KEEP_MS)
        return self._names(agent, target) | {"samples": _raw(rows)}

    def span(self, since: str | None, until: str | None, step: str | None) -> Span:
        """What the user asked for, with what he left out filled in. Raises Invalid."""
        return parse_span(since, until, step, self._clock.wall_ms(), self._registry.interval_s, self._kept())

    def _kept(self) -> Kept:
        now = self._clock.wall_ms()
        raw_ms, minutes_ms = self._keep.raw_hours * HOUR_MS, self._keep.minute_days * 24 * HOUR_MS
        return Kept(now - round(raw_ms), now - round(minutes_ms))

    def series(self, agent_ref: str, target_ref: str, span: Span) -> Json:
        """One pair: `points` of downsample.FIELDS, or `samples` as of `pair` where step is 0. Raises Refused."""
        agent, target = self._registry.agent(agent_ref), self._registry.target(target_ref)
        body = self._names(agent, target) | self._described(span)
        if span.step_ms:
            return body | {"points": self._source(agent, span).points(target.id)}
        rows = self._source(agent, span).read(target.id, span, list)
        if len(rows) > MAX_RAW:
            raise Invalid(f"{len(rows):,} samples are more than {MAX_RAW:,}; ask for less time, or give a step")
        return body | {"samples": _raw(rows)}

    def row(self, agent_ref: str, span: Span) -> Json:
        """One agent to all its targets: `series`, a list of {target, points}. Raises Refused."""
        agent = self._registry.agent(agent_ref)
        known = self._registry.snapshot.targets
        now = self._registry.snapshot.sets.get(agent.no)
        targets = [known[t] for t in dict.fromkeys(now.target_ids if now else ()) if t in known]
        _refuse_too_many(len(targets), span)
        source = self._source(agent, span)
        series = [{"target": t.name, "target_id": t.id, "points": source.points(t.id)} for t in _one_by_one(targets)]
        return {"agent": agent.hostname} | self._described(span) | {"series": series}

    def column(self, target_ref: str, span: Span) -> Json:
        """All agents to one target: `series`, a list of {agent, points}. Raises Refused."""
        target = self._registry.target(target_ref)
        agents = [a for a in self._registry.agents() if a.state in MEASURING and a.no != target.agent_no]
        _refuse_too_many(len(agents), span)
        series = [
            {"agent": a.hostname, "agent_id": a.id, "points": self._source(a, span).points(target.id)}
            for a in _one_by_one(agents)
        ]
        return {"target": target.name} | self._described(span) | {"series": series}

    def _names(self, agent: AgentView, target: TargetView) -> Json:
        return {"agent": agent.hostname, "target": target.name, "interval_s": self._registry.interval_s}

    def _described(self, span: Span) -> Json:
        return {
            "interval_s": self._registry.interval_s,
            "from": span.from_ms / 1000,
            "to": span.to_ms / 1000,
            "step_s": span.step_ms / 1000,
        }

    def _source(self, agent: AgentView, span: Span) -> _Source:
        remembered = self._recent.complete and span.from_ms >= self._clock.wall_ms() - KEEP_MS
        sets = None if remembered else self._registry.columns(agent.no)
        return _Source(agent.no, span, self._kept(), self._recent, self._store, self._clocks, sets)


@dataclass(frozen=True)
class _Source:
    """One agent's samples within a span: from memory where `sets` is None, else from the store by those target sets."""

    agent_no: int
    span: Span
    kept: Kept
    recent: Recent
    store: RoundStore
    clocks: Clocks
    sets: Mapping[int, Sequence[int]] | None

    def read(self, target_id: int, span: Span, then: Callable[[list[Sample]], list[T]]) -> list[T]:
        """The pair's samples through `then`; off the hub where the database must be asked."""
        if self.sets is None:
            rows = self.recent.pair(self.agent_no, target_id, span.from_ms)
            return then([row for row in rows if row[0] < span.to_ms])
        places = _places(self.sets, target_id)
        try:
            return run_blocking(lambda: then(self._stored(places, span)))
        except StoreError as error:
            raise Unavailable(AWAY.format(error)) from error

    def _stored(self, places: Mapping[int, Sequence[int]], span: Span) -> list[Sample]:
        """In a native thread: rows of the store under their corrected times."""
        behind, ahead = self.clocks.reach_ms(self.agent_no)
        rows = self.store.pair(self.agent_no, places, span.from_ms - behind, span.to_ms + ahead)
        if not behind and not ahead:
            return rows
        right = [(self.clocks.corrected_ms(self.agent_no, ms, flags), us, flags) for ms, us, flags in rows]
        return sorted((row for row in right if span.from_ms <= row[0] < span.to_ms), key=itemgetter(0))

    def points(self, target_id: int) -> list[Json]:
        """One point per step."""
        old, new = self._split()
        found = self._rolled(target_id, old) if old else []
        return found + (self.read(target_id, new, lambda rows: downsample.points(rows, new)) if new else [])

    def _split(self) -> tuple[Span | None, Span | None]:
        """(what comes from minutes and hours, what from single rounds); a step is made of one of them only."""
        span, raw_ms = self.span, self.kept.raw_ms
        if span.from_ms >= raw_ms:
            return None, span
        seam = -(-raw_ms // span.step_ms) * span.step_ms
        if seam >= span.to_ms:
            return span, None
        return Span(span.from_ms, seam, span.step_ms), Span(seam, span.to_ms, span.step_ms)

    def _rolled(self, target_id: int, span: Span) -> list[Json]:
        long = span.to_ms - span.from_ms > MINUTES_AT_MOST_MS and span.step_ms % HOUR_MS == 0
        hours = long or span.from_ms < self.kept.minutes_ms
        read = self.store.hours if hours else self.store.minutes
        first = span.starts()[0]
        try:
            return run_blocking(
                lambda: downsample.points_of_rollups(read(self.agent_no, target_id, first, span.to_ms), span)
            )
        except StoreError as error:
            raise Unavailable(AWAY.format(error)) from error


def _one_by_one(several: Sequence[T]) -> Iterator[T]:
    """Each of them, and in between a turn for whoever else wants to be served."""
    for one in several:
        yield one
        time.sleep(0)


def _places(sets: Mapping[int, Sequence[int]], target_id: int) -> dict[int, list[int]]:
    """Revision -> where the target stands in that set; sets without it are left out."""
    found = {revision: [i for i, t in enumerate(ids) if t == target_id] for revision, ids in sets.items()}
    return {revision: places for revision, places in found.items() if places}


def _raw(rows: Sequence[Sample]) -> list[Json]:
    return [
        {"timestamp": ms / 1000, "rtt_ms": us / 1000 if us >= 0 else None, "status": status}
        for ms, us, _ in rows
        if (status := status_of(us)) is not None
    ]


def _refuse_too_many(series: int, span: Span) -> None:
    if not span.step_ms:
        raise Invalid("a row or a column comes in steps, not as raw samples; give a step such as 60")
    if series * len(span.starts()) > MAX_ROW_POINTS:
        raise Invalid(f"{series} series of {len(span.starts())} points are too many at once; take a larger step")
