"""Which targets are lost round after round: perhaps not they are down, but a firewall on the way is stuck with our id.

Some routers and firewalls keep a dead entry for an ICMP id and drop whatever carries it, until it changes. One change
is tried per outage of a target. Must not know: how ids are changed.
"""

from __future__ import annotations

from array import array

from .wire.contract import Outcome

_STUCK_AFTER = 5  # rounds in a row
_TRIED = -1


class Losses:
    """Rounds in a row without any answer, by place in the plan, for those who are lost now only."""

    def __init__(self) -> None:
        self._rounds: dict[int, int] = {}

    @property
    def stuck(self) -> bool:
        """Whether another id may help somebody."""
        return any(n >= _STUCK_AFTER for n in self._rounds.values())

    def observe(self, samples: array[int]) -> None:
        """Count one round in which silence means loss."""
        known = self._rounds
        if not samples or min(samples) >= 0:
            self._rounds = {}
            return
        lost = [index for index, sample in enumerate(samples) if sample == Outcome.TIMEOUT]
        self._rounds = {index: _TRIED if (n := known.get(index, 0)) == _TRIED else n + 1 for index in lost}

    def tried(self) -> None:
        """Another id is in use; those that are lost with it too are really lost."""
        self._rounds = {index: _TRIED if n >= _STUCK_AFTER else n for index, n in self._rounds.items()}
