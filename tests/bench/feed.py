"""The samples that all stores of `bench-ingest` get: round-trip times with jitter, spikes and losses, always the same.

Must not know: who stores them.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from functools import cache

INTERVAL_MS = 5_000
_LOST = 0.003  # share of probes without an answer
_SPIKE = 0.01  # share that waited in some queue


@dataclass(frozen=True)
class Feed:
    """`agents` times `targets` pairs, `rounds` rounds of each, the last one just before `now_ms`."""

    agents: int
    targets: int
    rounds: int
    now_ms: int

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.agents * self.targets * self.rounds

    def make(self) -> None:
        """Make all of them now, so that nobody waits for that later."""
        for agent in range(self.agents):
            for number in range(self.rounds):
                self.column(agent, number)

    def time_ms(self, number: int) -> int:
        """When round `number` (from 0) started."""
        return self.now_ms - (self.rounds - number) * INTERVAL_MS

    def column(self, agent: int, number: int) -> array[int]:
        """One round of one agent: us per target, -1 where lost; targets lie 0.5 to 250 ms away."""
        return _column(agent, number, self.targets)


@cache  # making them costs more than storing them
def _column(agent: int, number: int, targets: int) -> array[int]:
    chance = random.Random(agent * 1_000_003 + number)
    gauss, uniform = chance.gauss, chance.random
    column = array("i")
    for target in range(targets):
        base = 500 * 1.0062 ** ((target * 37 + agent * 11) % 1000)
        value = base * (1 + abs(gauss(0, 0.02))) + 15
        if uniform() < _SPIKE:
            value += base * uniform()
        column.append(-1 if uniform() < _LOST else round(value))
    return column
