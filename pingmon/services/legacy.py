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

from .ingest import Ingest
from .recent import Recent
from .registry import Registry
from .views import SetView

Json = dict[str, Any]
EPOCH = "legacy"


class LegacyIngest:
    """Gathers samples of one moment into one round and hands it to the ordinary ingest."""

    def __init__(self, ingest: Ingest, registry: Registry, recent: Recent) -> None:
        self._ingest, self._registry, self._recent = ingest, registry, recent
        self._turns: defaultdict[int, Lock] = defaultdict(Lock)

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
        there = {place: self._times(agent_no, current.target_ids[place]) for place in {place for place, _ in known}}
        for place, sample in known:
            if sample.at_ms not in there[place]:
                moments.setdefault(sample.at_ms, {})[place] = sample.sample
        self._ingest.reject(ErrorCode.TARGET, len([s for s in samples if s.target not in places]))
        answer = self._store(agent_no, current, moments)
        return answer | {"rejected": [[target, ErrorCode.TARGET] for target in unknown]}

    def _places(self, current: SetView) -> dict[str, int]:
        targets = self._registry.snapshot.targets
        views = [(i, targets[t]) for i, t in enumerate(current.target_ids) if t in targets]
        return {word: i for i, view in reversed(views) for word in (str(view.id), view.name, view.address)}

    def _times(self, agent_no: int, target_id: int) -> set[int]:
        return {ms for ms, sample, _ in self._recent.pair(agent_no, target_id, 0) if sample != Outcome.NOT_PROBED}

    def _store(self, agent_no: int, current: SetView, moments: dict[int, dict[int, int]]) -> Json:
        if not moments:
            return {"ok": True, "dup": 0}
        rounds = []
        for seq, at_ms in enumerate(sorted(moments), start=self._ingest.upto(agent_no, EPOCH) + 1):
            column = array("i", [Outcome.NOT_PROBED]) * len(current.target_ids)
            for place, value in moments[at_ms].items():
                column[place] = value
            stamped = self._ingest.stamp(agent_no, EPOCH, seq, at_ms, current.revision, column, False)
            rounds.append((stamped, current.target_ids))
        return self._ingest.submit_rounds(agent_no, EPOCH, rounds)
