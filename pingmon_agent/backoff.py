"""How long to stay away from the server after a connection ended: full jitter over a spread that the server names.

Everybody's first retry after an outage would fall into the same second without the spread. Pure numbers;
`draw(low, high)` is the only source of chance. Must not know: sockets, why the connection ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LONGEST_S = 60.0
HEALTHY_S = 60.0  # a session shorter than this does not prove that the trouble is over
SLOW_S = 60.0
WARY_S = (300.0, 900.0)
RARE_FIRST_S, RARE_LONGEST_S = 900.0, 3600.0

Draw = Callable[[float, float], float]
_draw: Draw = random.SystemRandom().uniform


class Backoff:
    """Counts failures and draws the next pause, in seconds."""

    def __init__(self, draw: Draw = _draw) -> None:
        self._draw = draw
        self._failures = self._refusals = 0
        self.spread_s = 1.0  # from the last approved answer

    def first(self, spread_s: float) -> float:
        """Before the first connection: a fleet that is started at once need not arrive at once."""
        return self._draw(0.0, spread_s)

    def soon(self, healthy_s: float, floor_s: float = 0.0) -> float:
        """After a session of `healthy_s` (0: none): uniform(0, max(spread, min(60, 2^n))) on top of the floor."""
        if healthy_s >= HEALTHY_S:
            self._failures = self._refusals = 0
        widest = max(self.spread_s, min(LONGEST_S, 2.0 ** min(self._failures, 10)))
        self._failures += 1
        return floor_s + self._draw(0.0, widest)

    def slow(self, floor_s: float = 0.0) -> float:
        """While somebody has to decide: a minute, +-50 %, never less than the floor."""
        return max(floor_s, SLOW_S * self._draw(0.5, 1.5))

    def wary(self) -> float:
        """The other side is not our server: 5 to 15 minutes."""
        return self._draw(*WARY_S)

    def rare(self, floor_s: float = 0.0) -> float:
        """Refused until somebody changes something: 15 minutes, doubling up to an hour, jittered, above the floor."""
        longest = min(RARE_LONGEST_S, RARE_FIRST_S * 2.0 ** min(self._refusals, 10))
        self._refusals += 1
        return max(floor_s, longest * self._draw(0.5, 1.0))

    def accepted(self, spread_s: float) -> None:
        """The server took this agent in; the next refusal starts at 15 minutes again."""
        self._refusals = 0
        self.spread_s = max(1.0, spread_s)
