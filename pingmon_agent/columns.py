"""From targets to probes: the columns of a set, the order they are sent in, and which of them are due in a round.

A target has `count` columns for each of its families, side by side in the report; they are sent shot by shot, so that
the probes of one target are spread over the window. Must not know: sockets, clocks, the ring.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .plan import STANDARD, Way
from .policy import Judge
from .wire.contract import Outcome, Probe, Target, TargetSet
from .wire.hosts import PolicyCode

NO_TARGETS = TargetSet(agent_id="", revision=0, issued_at=0, interval_s=1.0, targets=())
AddressOf = Callable[[str, int], str | None]


@dataclass(frozen=True, slots=True)
class _Column:
    target: Target
    family: int
    shot: int
    way: Way


@dataclass(frozen=True)
class Probing:
    """One round of a set: what the engine is to do, and how its samples go into the report.

    `places` = the column of each sample, None where they are the same; `blank` = what the others are.
    """

    addresses: Sequence[str | None]
    ways: Sequence[Way] | None
    places: Sequence[int] | None
    blank: array[int]
    limits_us: Sequence[tuple[int, int]]

    def fill(self, samples: array[int]) -> array[int]:
        """The columns of the report."""
        if self.places is None:
            return samples
        columns = array("i", self.blank)
        for place, sample in zip(self.places, samples, strict=True):
            columns[place] = sample
        for place, limit in self.limits_us:
            if columns[place] > limit:
                columns[place] = Outcome.TIMEOUT
        return columns


class Columns:
    """The columns of one target set."""

    def __init__(self, targets: TargetSet, judge: Judge) -> None:
        self._judge, self._interval_s = judge, targets.interval_s
        self._verdicts = judge.verdicts(targets)
        self._columns = [column for target in targets.targets for column in _columns_of(target)]
        self._plain = all(column.way == STANDARD and _is_plain(column.target.probe) for column in self._columns)
        self._sending = sorted(range(len(self._columns)), key=lambda place: self._columns[place].shot)
        self._every = [column.target.probe.turns(self._interval_s) for column in self._columns]
        self.limit_ms = max((column.target.probe.timeout_ms for column in self._columns), default=0)
        self.unresolved = self.refused = 0
        self.refused_names: dict[int, PolicyCode] = {}  # by target id: what their names stand for is refused

    @property
    def changing(self) -> bool:
        """Whether not every column is due in every round."""
        return max(self._every, default=1) > 1

    def probing(self, address_of: AddressOf, turn: int) -> Probing:
        """What is due in round `turn` (0 = the first of this set, when everything is)."""
        blank = array("i", [Outcome.NOT_PROBED]) * len(self._columns)
        addresses: list[str | None] = []
        places: list[int] = []
        refused: dict[int, PolicyCode] = {}
        self.unresolved = self.refused = 0
        due = [place for place in self._sending if self._is_due(place, turn)]
        for place in due:
            target = self._columns[place].target
            address = address_of(target.address, self._columns[place].family)
            why = self._verdicts.get(target.id) or (address and self._judge.refuses(address))
            if why:
                blank[place] = Outcome.REFUSED_BY_POLICY
                refused[target.id] = PolicyCode(why)
                self.refused += 1
            elif address is None:
                blank[place] = Outcome.UNRESOLVED
                self.unresolved += 1
            else:
                addresses.append(address)
                places.append(place)
        self._remember(refused, due)
        whole = self._plain and len(places) == len(self._columns)
        return Probing(
            addresses=addresses,
            ways=None if self._plain else [self._columns[place].way for place in places],
            places=None if whole else places,
            blank=blank,
            limits_us=() if self._plain else self._limits(places),
        )

    def _is_due(self, place: int, turn: int) -> bool:
        return not turn or (turn + self._columns[place].target.id) % self._every[place] == 0

    def _remember(self, refused: dict[int, PolicyCode], due: Sequence[int]) -> None:
        """Which names are refused; of those that were not due, what was said before stands."""
        asked = {self._columns[place].target.id for place in due} if self.refused_names else set()
        kept = {target_id: why for target_id, why in self.refused_names.items() if target_id not in asked}
        fresh = {target_id: why for target_id, why in refused.items() if target_id not in self._verdicts}
        self.refused_names = kept | fresh

    def _limits(self, places: Sequence[int]) -> list[tuple[int, int]]:
        limits = ((place, self._columns[place].target.probe.timeout_ms * 1000) for place in places)
        return [(place, limit) for place, limit in limits if limit]


def _is_plain(probe: Probe) -> bool:
    return probe.count == 1 and not (probe.family or probe.timeout_ms or probe.interval_s)


def _columns_of(target: Target) -> list[_Column]:
    probe = target.probe
    way = Way(size=probe.size, ttl=probe.ttl, dscp=probe.dscp, df=probe.df, source=probe.source)
    families = (4, 6) if probe.family == 46 else (probe.family,)
    return [_Column(target, family, shot, way) for family in families for shot in range(probe.count)]
