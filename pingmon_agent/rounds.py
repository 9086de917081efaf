"""The round loop: waits for the schedule, runs the engine, hands each round on to the ring and the metrics.

Measuring does not depend on the server: once there are targets, rounds go into the ring whatever the connection does.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .columns import NO_TARGETS, Columns, Probing
from .log import say
from .pairs import Pairs
from .plan import Engine, Plan, Probed
from .policy import Judge
from .pulse import Pulse
from .resolve import Resolver
from .ring import Ring
from .schedule import Schedule, Tick
from .wire.contract import TargetSet
from .wire.hosts import PolicyCode

_log = logging.getLogger(__name__)
_FIRST_LOOKUP_S = 1.0  # a new set waits this long at most for its names
_NAP_S = 0.2
_LONGEST_WAIT_S = 2.0  # then the loop turns once and waits on, so that a watcher sees it
_AFTER_BUG_S = 1.0
_SLACK_S = 10.0  # for a host that is busy, and for what no step announces
# Window and timeout together must leave the rest of the interval free, or rounds would overlap.
_SHARE_OF_INTERVAL = 0.9
_WINDOW_SHARE = 1 / 3


@dataclass
class RoundCounts:
    """Rounds since the start; `outcomes` counts samples that are not replies, by Outcome."""

    done: int = 0
    disturbed: int = 0
    skipped: int = 0
    faults: int = 0


class Rounds:
    """Runs rounds until told to stop. Owned by one thread."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        resolver: Resolver,
        ring: Ring,
        pairs: Pairs,
        on_round: Callable[[Tick], None],
        timeout_s: float,
        window_s: float,
        judge: Judge,
    ) -> None:
        self._schedule, self._resolver, self._ring, self._pairs = schedule, resolver, ring, pairs
        self._on_round = on_round
        self._timeout_s, self._window_s, self._judge = timeout_s, window_s, judge
        self.counts, self.pulse = RoundCounts(), Pulse(_SLACK_S)
        self.outcomes: Counter[int] = Counter()
        self._columns = Columns(NO_TARGETS, judge)
        self.refused_names: tuple[int, dict[int, PolicyCode]] = (0, {})  # of which revision; a new pair at each change
        self._probing: Probing | None = None
        self._planned: TargetSet | None = None
        self._planned_changes = self._turn = 0

    def run(self, engine: Engine, stop: threading.Event) -> None:
        """Rounds until `stop`; a bug in one is logged, counted and survived."""
        while not stop.is_set():
            try:
                self._wait_and_probe(engine, stop)
            except Exception:  # noqa: BLE001 - one of the three loop heads
                self.counts.faults += 1
                _log.exception("a round met a bug; please report it")
                stop.wait(_AFTER_BUG_S)

    def _wait_and_probe(self, engine: Engine, stop: threading.Event) -> None:
        self.pulse.beat(_LONGEST_WAIT_S)
        wait = self._schedule.wait_s()
        if wait is None:
            self._schedule.wait_for_targets(_NAP_S)
        elif wait > 0:
            stop.wait(min(wait, _LONGEST_WAIT_S))
        elif (tick := self._schedule.begin()) is not None:
            self._probe(engine, tick, stop)
        elif (empty := self._schedule.current) is not None:
            self._load(empty)  # nothing is pinged any more, and nothing may look as if it were

    def _probe(self, engine: Engine, tick: Tick, stop: threading.Event) -> None:
        if tick.changed:
            self._load(tick.targets)
        plan = self.plan(tick.targets)
        self.pulse.beat(plan.window_s + plan.timeout_s)
        probed = engine.run_round(plan)
        if stop.is_set():
            return  # cut short: what was not waited for is no loss
        self._keep(tick, probed)
        self._on_round(tick)

    def plan(self, targets: TargetSet) -> Plan:
        """What the engine is to do for this set now."""
        probing = self._probing_of(targets)
        room = targets.interval_s * _SHARE_OF_INTERVAL
        window = min(self._window_s, room * _WINDOW_SHARE)
        timeout = min(max(self._timeout_s, self._columns.limit_ms / 1000), room - window)
        return Plan(addresses=probing.addresses, ways=probing.ways, window_s=window, timeout_s=timeout)

    def _probing_of(self, targets: TargetSet) -> Probing:
        """The same again while no name has got another address: the engine then keeps what it made of it."""
        known = self._resolver.changes
        if targets is not self._planned:
            self._columns, self._turn = Columns(targets, self._judge), 0
        same = targets is self._planned and known == self._planned_changes
        if self._probing is None or not same or self._columns.changing:
            self._probing = self._columns.probing(self._resolver.address, self._turn)
            self._planned, self._planned_changes = targets, known
            self._note_refusals(targets)
        return self._probing

    def _note_refusals(self, targets: TargetSet) -> None:
        """A name may come to stand for an address that is refused, at any time after the set was taken."""
        found = (targets.revision, self._columns.refused_names)
        if found == self.refused_names:
            return
        for target in targets.targets:
            why = found[1].get(target.id)
            if why is not None and self.refused_names[1].get(target.id) != why:
                _log.warning(say("what this name stands for is not pinged from here", name=target.address, code=why))
        self.refused_names = found

    @property
    def unresolved(self) -> int:
        """Columns without an address in the last round."""
        return self._columns.unresolved

    @property
    def refused(self) -> int:
        """Columns that this host refused to probe in the last round."""
        return self._columns.refused

    def _load(self, targets: TargetSet) -> None:
        self._pairs.load(targets)
        self._resolver.watch(target.address for target in targets.targets)
        self._resolver.settle(_FIRST_LOOKUP_S)
        _log.info(
            say(
                "targets in force", count=len(targets.targets), revision=targets.revision, interval_s=targets.interval_s
            )
        )
        timeout = self.plan(targets).timeout_s
        if timeout < self._timeout_s:
            _log.warning(
                say("probe.timeout_ms is too long for the interval, using less", timeout_ms=round(timeout * 1000))
            )

    def _keep(self, tick: Tick, probed: Probed) -> None:
        disturbed = probed.disturbed or tick.disturbed
        samples = self._probing.fill(probed.samples) if self._probing else probed.samples
        self._turn += 1 + tick.skipped
        self._ring.append(
            started_ms=probed.started_ms,
            revision=tick.targets.revision,
            samples=samples,
            disturbed=disturbed,
            agent_id=tick.targets.agent_id,
        )
        self._pairs.observe(samples, probed.started_ms)
        self.counts.done += 1
        self.counts.disturbed += disturbed
        self.counts.skipped += tick.skipped
        if samples and min(samples) < 0:
            self.outcomes.update(sample for sample in samples if sample < 0)
        if tick.skipped:
            _log.warning(say("rounds skipped, this host was asleep or busy", count=tick.skipped))
