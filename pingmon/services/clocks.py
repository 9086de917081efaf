"""How far each agent's clock is off, and with it when a round really started. Stored times stay the agent's own.

An agent says when it sent a message by its clock; what is between that and our receipt is its offset and the way. The
way only ever adds, so the least of ten minutes is the best estimate. Must not know: sockets, the database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

from pingmon.store.rounds import FLAG_CLOCK, RoundHead

from .clock import Clock

WINDOW_MIN = 10
# So many measurements in a row that all lie STEP_MS above the least, and close to each other: not the way, a step.
STEP_AFTER, STEP_MS, AGREE_MS = 5, 2_000, 1_000
# A smaller offset cannot be told from the way, so no time is corrected by it.
CORRECT_FROM_MS = 1_000
# A change of the correction that is worth a row in the database.
NEWS_MS = 100
# More than a day of a clock that runs away by a tenth of a second every two minutes.
MAX_CORRECTIONS = 1_000
# An agent that does not say when it sends is judged by its newest rounds, once so many reports in a row agree.
SETTLED_AFTER = 3


@dataclass
class Lag:
    """One agent's receipt minus sending, in ms: minus its offset, plus the way. `least` is the estimate."""

    minutes: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW_MIN))
    latest: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=STEP_AFTER))

    def add(self, lag_ms: int, now_s: float) -> float | None:
        """One more measurement, at `now_s` of a clock that only rises. Where it shows that the agent's clock was set:
        for how many seconds it may have been wrong, else None."""
        before, least = self.latest[-1] if self.latest else None, self.least
        self.latest.append((lag_ms, now_s))
        stepped: float | None = None
        if self._stepped_back():
            stepped = now_s - self.latest[0][1]
            self.minutes.clear()
        elif before is not None and least is not None and lag_ms < least - STEP_MS:
            stepped = now_s - before[1]
        minute = int(now_s // 60)
        while self.minutes and self.minutes[0][0] <= minute - WINDOW_MIN:
            self.minutes.popleft()
        if self.minutes and self.minutes[-1][0] == minute:
            lag_ms = min(lag_ms, self.minutes.pop()[1])
        self.minutes.append((minute, lag_ms))
        return stepped

    def _stepped_back(self) -> bool:
        if len(self.latest) < STEP_AFTER or self.least is None:
            return False
        low, high = min(self.latest)[0], max(self.latest)[0]
        return low > self.least + STEP_MS and high - low < AGREE_MS

    @property
    def least(self) -> int | None:
        """The estimate; None before the first measurement."""
        return min((lag for _, lag in self.minutes), default=None)


@dataclass
class _Agent:
    sent: Lag = field(default_factory=Lag)
    rounds: Lag = field(default_factory=Lag)
    newest: deque[int] = field(default_factory=lambda: deque(maxlen=SETTLED_AFTER))
    # Since when (our time) which correction held, in ms to take off the agent's time; oldest first.
    corrections: list[tuple[int, int]] = field(default_factory=list)


class Clocks:
    """All agents' clocks, by agent number. `known`: corrections of the past, [(agent_no, since_ms, offset_ms)]."""

    def __init__(self, clock: Clock, interval_s: float, known: list[tuple[int, int, int]]) -> None:
        self._clock, self._interval_ms = clock, interval_s * 1000
        self._agents: dict[int, _Agent] = {}
        self._news: list[tuple[int, int, int]] = []
        self._steps: list[tuple[int, int, int]] = []
        for agent_no, since_ms, offset_ms in sorted(known):
            self._agent(agent_no).corrections.append((since_ms, offset_ms))

    def _agent(self, agent_no: int) -> _Agent:
        return self._agents.setdefault(agent_no, _Agent())

    # -- in --

    def heard(self, agent_no: int, sent_ms: int) -> None:
        """A message came that left at `sent_ms` by the agent's clock."""
        agent, now = self._agent(agent_no), self._clock.wall_ms()
        wrong_s = agent.sent.add(now - sent_ms, self._clock.monotonic())
        if wrong_s is not None:
            self._steps.append((agent_no, now - round(wrong_s * 1000), now))
        offset = self.offset_ms(agent_no) or 0
        current = agent.corrections[-1][1] if agent.corrections else 0
        # At the edge a correction must not come and go with every report.
        wanted = offset if abs(offset) >= CORRECT_FROM_MS - (2 * NEWS_MS if current else 0) else 0
        if wanted != current and (not wanted or not current or abs(wanted - current) >= NEWS_MS):
            agent.corrections.append((now, wanted))
            del agent.corrections[:-MAX_CORRECTIONS]
            self._news.append((agent_no, now, wanted))

    def heard_round(self, agent_no: int, started_ms: int) -> None:
        """A report came whose newest round started then: for agents that do not say when they send."""
        agent = self._agent(agent_no)
        agent.newest.append(self._clock.wall_ms() - started_ms)
        # An agent that catches up comes from far away with great strides; that says nothing about its clock.
        if len(agent.newest) == SETTLED_AFTER and max(agent.newest) - min(agent.newest) < self._interval_ms:
            agent.rounds.add(min(agent.newest), self._clock.monotonic())

    # -- out --

    def offset_ms(self, agent_no: int) -> int | None:
        """The agent's clock minus ours; None for an agent that does not say when it sends."""
        agent = self._agents.get(agent_no)
        least = agent.sent.least if agent else None
        return None if least is None else -least

    def age_ms(self, agent_no: int, started_ms: int) -> int | None:
        """How long ago a round started whose agent says `started_ms`; None if its clock was never measured."""
        agent = self._agents.get(agent_no)
        if agent is None:
            return None
        least = agent.sent.least if agent.sent.least is not None else agent.rounds.least
        return None if least is None else self._clock.wall_ms() - started_ms - least

    def shown_ms(self, stored: RoundHead) -> int:
        """When a round started in our time, as the agent's clock was measured when the round was received."""
        agent = self._agents.get(stored.agent_no)
        if agent is None or not agent.corrections or stored.flags & FLAG_CLOCK:
            return stored.started_ms
        at = bisect_right(agent.corrections, stored.received_ms, key=lambda correction: correction[0])
        return stored.started_ms - (agent.corrections[at - 1][1] if at else 0)

    def corrected_ms(self, agent_no: int, started_ms: int, flags: int) -> int:
        """The same as `shown_ms` where nobody knows any more when the round was received: as if that was at once."""
        agent = self._agents.get(agent_no)
        if agent is None or flags & FLAG_CLOCK:
            return started_ms
        for since_ms, offset_ms in reversed(agent.corrections):
            if started_ms - offset_ms >= since_ms:
                return started_ms - offset_ms
        return started_ms

    def reach_ms(self, agent_no: int) -> tuple[int, int]:
        """(most behind, most ahead): how far from its true time a stored round of this agent may stand."""
        agent = self._agents.get(agent_no)
        offsets = [0, *(offset for _, offset in agent.corrections)] if agent else [0]
        return -min(offsets), max(offsets)

    def most_behind_ms(self) -> int:
        """How much older than it is a stored round may say it is, at most."""
        return max([0, *(-offset for agent in self._agents.values() for _, offset in agent.corrections)])

    # -- for the database --

    def take_news(self) -> list[tuple[int, int, int]]:
        """Corrections not saved yet, as in `known`; `put_back` those that could not be saved."""
        news, self._news = self._news, []
        return news

    def take_steps(self) -> list[tuple[int, int, int]]:
        """[(agent_no, from_ms, to_ms)] in which an agent's clock was set and its rounds stand at wrong times."""
        steps, self._steps = self._steps, []
        return steps

    def put_back(self, news: list[tuple[int, int, int]], steps: list[tuple[int, int, int]]) -> None:
        """Save these with the next commit."""
        self._news, self._steps = news + self._news, steps + self._steps
