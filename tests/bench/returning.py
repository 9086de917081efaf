"""The process of many simulated agents that come back by themselves: `python -m tests.bench.returning '{...}'`.

Ring, delivery, door and backoff are the agent's own, the line is lean.py's. Commands come on standard input:
`back SINCE` (monotonic seconds) is answered by `back` once every agent was let in after that; `drain` ends measuring
and is answered by one line of JSON, see `Told`, once the server has all. All times are of the monotonic clock, in
seconds, which is the same in every process. Must not know: what is done to the server.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pingmon_agent.answers import Answer
from pingmon_agent.backoff import Backoff
from pingmon_agent.config import Server as Address
from pingmon_agent.session import SessionState
from pingmon_agent.tls import CONNECT_TIMEOUT_S, client_context
from pingmon_agent.uplink import ACK_TIMEOUT_S, ANSWER_TIMEOUT_S
from pingmon_agent.wire.contract import EVENT_DATA, EVENT_HANDSHAKE, EVENT_TARGETS
from tests.faults.agents import SimAgent, Timeline

from .lean import LeanLine, LineError

Json = dict[str, Any]
INTERVAL_S, BYSTANDER_S = 5.0, 1.0
SOON_S = 0.25  # the pause of a bystander, who is there to see how the return of the others is for those who are back
_LAG_EVERY_S = 0.02


@dataclass(frozen=True)
class Plan:
    """`names` start within `start_s`; the first `bystanders` of them come back at once and measure every second."""

    names: list[str]
    folder: str
    url: str
    ca_file: str
    pin: str
    seed: int
    bystanders: int
    start_s: float


@dataclass
class Told:
    """What happened: when agents greeted, when they were let in, [when, how long] of acknowledgements and of this
    process's own delays, and why connections ended."""

    greeted: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    bystanders: list[tuple[float, float]] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)


class Returner:
    """One agent and its loop of connections, as uplink.py goes about it."""

    def __init__(self, agent: SimAgent, told: Told, backoff: Backoff, every_s: float) -> None:
        self.agent, self._told, self._backoff, self._every_s = agent, told, backoff, every_s
        self._line: LeanLine | None = None
        self._answer: Answer | None = None
        self._ack_by = self.back_at = 0.0
        self.measuring = True

    async def live(self, address: Address, context: Any, start_s: float) -> None:
        """Connect, stay, come back, for ever."""
        await asyncio.sleep(self._backoff.first(start_s))
        while True:
            began, self._answer = time.monotonic(), None
            try:
                await self._visit(address, context)
            except (OSError, EOFError) as error:  # TimeoutError and ssl.SSLError are OSErrors
                why = f"{type(error).__name__} {error}"[:80]
                self._told.ends[why] = self._told.ends.get(why, 0) + 1
            self._line = None
            self.agent.delivery.lost()
            await asyncio.sleep(self._pause(time.monotonic() - began))

    def _pause(self, lasted_s: float) -> float:
        answer = self._answer
        if answer is not None and answer.state is SessionState.REFUSED:
            return self._backoff.soon(0.0, answer.retry_after_s)
        return self._backoff.soon(lasted_s if answer else 0.0)

    async def _visit(self, address: Address, context: Any) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            line = await LeanLine.open(address, context)
        late = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT_S, self._unanswered, line)
        try:
            line.on_event = self._event
            self._line = line
            self.agent.door.opened(line.leaf)
            self._greet(line)
            await line.listen()
        finally:
            late.cancel()
            line.cut()

    def _unanswered(self, line: LeanLine) -> None:
        if self._answer is None:
            line.cut()

    def _greet(self, line: LeanLine) -> None:
        self._told.greeted.append(time.monotonic())
        hello = self.agent.door.greet(self.agent.delivery.greet("127.0.0.1"))
        line.emit(EVENT_HANDSHAKE, hello, partial(self._answered, line))

    def _answered(self, line: LeanLine, body: object) -> None:
        if isinstance(body, dict) and body.get("state") == "challenge":
            line.emit(EVENT_HANDSHAKE, self.agent.door.prove(body), partial(self._answered, line))
            return
        self.agent.door.check(body)
        self._answer = answer = self.agent.delivery.on_handshake(body)
        if answer.state is not SessionState.APPROVED:
            raise LineError(f"{answer.state} {answer.code}")
        self._backoff.accepted(answer.spread_s)
        self.back_at = time.monotonic()
        self._told.back.append(self.back_at)
        self._report()

    def _event(self, name: str, body: object) -> Json | None:
        if name != EVENT_TARGETS:
            raise LineError(f"the server pushed {name} {body}")
        self.agent.door.check_targets(body)
        return self.agent.delivery.on_targets(body)

    async def measure(self, phase_s: float) -> None:
        """A round every so often, connected or not."""
        due = time.monotonic() + phase_s
        while self.measuring:
            await asyncio.sleep(due - time.monotonic())
            self.agent.measure()
            self._report()
            due += self._every_s

    def _report(self) -> None:
        now, line = time.monotonic(), self._line
        if line is None:
            return
        if self.agent.delivery.in_flight is not None and now > self._ack_by:
            line.cut()
            return
        report = self.agent.delivery.next_report(now)
        if report is not None:
            self._ack_by = now + ACK_TIMEOUT_S
            line.emit(EVENT_DATA, report.payload, partial(self._acknowledged, line, report.token))

    def _acknowledged(self, line: LeanLine, token: int, body: object) -> None:
        if self.agent.delivery.on_ack(token, body, time.monotonic()):
            self._report()
        else:
            self._greet(line)


class Crowd:
    """All agents of this process."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._told = plan, Told()
        timeline, folder = Timeline(0.0), Path(plan.folder)
        self._agents = []
        for number, name in enumerate(plan.names):
            agent = SimAgent(name, timeline, folder, plan.pin)
            near = number < plan.bystanders
            backoff = (
                Backoff(lambda _low, _high: SOON_S) if near else Backoff(random.Random(plan.seed + number).uniform)
            )
            every_s = BYSTANDER_S if near else INTERVAL_S
            self._agents.append(Returner(agent, self._told, backoff, every_s))

    async def run(self) -> None:
        """Until `drain` or the end of standard input."""
        plan = self._plan
        address = Address(url=plan.url, ca_file=plan.ca_file, identity=plan.pin)
        context = client_context(plan.ca_file)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch_lag())]
            for number, agent in enumerate(self._agents):
                tasks.append(group.create_task(agent.live(address, context, plan.start_s)))
                tasks.append(group.create_task(agent.measure(INTERVAL_S * number / len(self._agents))))
            await self._obey()
            for task in tasks:
                task.cancel()

    async def _watch_lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            late = time.monotonic() - began - _LAG_EVERY_S
            if late > _LAG_EVERY_S:
                self._told.lags.append((began, late))

    async def _obey(self) -> None:
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while words := (await commands.readline()).split():
            if words[0] == b"back":
                await self._all_back(float(words[1]))
                print("back", flush=True)
            else:
                await self._drain()

    async def _all_back(self, since: float) -> None:
        await self._until(lambda: all(a.back_at > since and a.agent.connected for a in self._agents))

    async def _drain(self) -> None:
        for agent in self._agents:
            agent.measuring = False
        await self._until(lambda: all(a.agent.delivered for a in self._agents))
        for number, returner in enumerate(self._agents):
            waits = returner.agent.delivery.waits
            (self._told.bystanders if number < self._plan.bystanders else self._told.waits).extend(waits)
        print(json.dumps(asdict(self._told)), flush=True)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(Crowd(Plan(**json.loads(sys.argv[1]))).run())
