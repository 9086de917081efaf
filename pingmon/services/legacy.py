"""Reports of legacy agents, `{target, rtt_ms, timestamp}` or a list of these, turned into rounds like all others.

Such clients number nothing, so a sample is a duplicate where the same target was reported for the same millisecond.
Must not know: sockets, Flask.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from threading import Lock
from typing import Any

from pingmon_agent.wire.contract import ErrorCode, Outcome, WireError
from pingmon_agent.wire.legacy import LegacySample

from .clock import Clock
from .clocks import Clocks
from .ingest import Ingest
from .recent import KEEP_MS, Recent
from .registry import Registry
from .views import SetView

Json = dict[str, Any]
EPOCH = "legacy"


class _Taken:
    """Which samples (target id, ms) of an agent were taken within the last hour, or somewhat longer.

    Looking each one up in the columns of the last hour would cost 30 ms a sample, on the hub.
    """

    def __init__(self, known: set[tuple[int, int]], now_ms: int) -> None:
        self._fresh, self._old, self._since_ms = known, set[tuple[int, int]](), now_ms

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._fresh or key in self._old

    def add(self, keys: set[tuple[int, int]], now_ms: int) -> None:
        """Note what was committed; what is older than an hour goes."""
        if now_ms - self._since_ms > KEEP_MS:
            self._old, self._fresh, self._since_ms = self._fresh, set(), now_ms
        self._fresh |= keys


class LegacyIngest:
    """Gathers samples of one moment into one round and hands it to the ordinary ingest."""

    def __init__(self, ingest: Ingest, registry: Registry, recent: Recent, clock: Clock, clocks: Clocks) -> None:
        self._ingest, self._registry, self._recent, self._clock = ingest, registry, recent, clock
        self._clocks = clocks
        self._turns: defaultdict[int, Lock] = defaultdict(Lock)
        self._taken: dict[int, _Taken] = {}

    def submit(self, agent_no: int, samples: list[LegacySample]) -> Json:
        """Store samples of known targets, return the acknowledgement with the rest under `rejected`."""
        # Numbers are given here: two reports at once, over an old and a new connection, would get the same ones.
        with self._turns[agent_no]:
            return self._submit(agent_no, samples)

    def _submit(self, agent_no: int, samples: list[LegacySample]) -> Json:
        current = self._registry.snapshot.sets.get(agent_no)
        if current is None:
            raise WireError(ErrorCode.STATE, "this agent has no targets yet; wait for update_targets")
        places = self._places(current)
        known = [(places[s.target], s) for s in samples if s.target in places]
        unknown = sorted({s.target for s in samples if s.target not in places})
        moments: dict[int, dict[int, int]] = {}
        taken, fresh = self._taken_of(agent_no), set()
        for place, sample in known:
            key = (current.target_ids[place], sample.at_ms)
            if key not in taken:
                fresh.add(key)
                moments.setdefault(sample.at_ms, {})[place] = sample.sample
        self._ingest.reject(ErrorCode.TARGET, len([s for s in samples if s.target not in places]))
        answer = self._store(agent_no, current, moments)
        if answer["ok"]:
            taken.add(fresh, self._clock.wall_ms())
        return answer | {"rejected": [[target, ErrorCode.TARGET] for target in unknown]}

    def _places(self, current: SetView) -> dict[str, int]:
        targets = self._registry.snapshot.targets
        views = [(i, targets[t]) for i, t in enumerate(current.target_ids) if t in targets]
        return {word: i for i, view in reversed(views) for word in (str(view.id), view.name, view.address)}

    def warm_up(self) -> None:
        """Learn from the last hour in memory before anybody waits for it."""
        for view in self._registry.agents():
            if view.legacy:
                self._taken_of(view.no)

    def _taken_of(self, agent_no: int) -> _Taken:
        if agent_no not in self._taken:
            known = {
                (target_id, ms)
                for target_id in self._registry.snapshot.targets
                for ms, sample, _ in self._recent.pair(agent_no, target_id, 0)
                if sample != Outcome.NOT_PROBED
            }
            self._taken[agent_no] = _Taken(known, self._clock.wall_ms())
        return self._taken[agent_no]

    def _store(self, agent_no: int, current: SetView, moments: dict[int, dict[int, int]]) -> Json:
        if not moments:
            return {"ok": True, "dup": 0}
        rounds = []
        self._clocks.heard_round(agent_no, max(moments))
        for seq, at_ms in enumerate(sorted(moments), start=self._ingest.upto(agent_no, EPOCH) + 1):
            column = array("i", [Outcome.NOT_PROBED]) * len(current.target_ids)
            for place, value in moments[at_ms].items():
                column[place] = value
            stamped = self._ingest.stamp(agent_no, EPOCH, seq, at_ms, current.revision, column, False)
            rounds.append((stamped, current.target_ids))
        return self._ingest.submit_rounds(agent_no, EPOCH, rounds)
