"""The server's store and ingest in a child process that is forked and dies, and agents that speak to it over a pipe.

The same services, committer, Delivery and ring as ever, without sockets between them: hundreds of deaths in a minute.
Must not know: why it dies.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pingmon.config import load
from pingmon.services import bundle, ingest
from pingmon.services.bundle import Services
from pingmon.store.rounds import SqliteRounds
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import ErrorCode, TargetSet, WireError
from tests.support.processes import write_server

from .agents import SimAgent, Timeline
from .oracle import Verdict, acked_too_early, judge
from .world import HurtServer, Run, register

Json = dict[str, Any]
HURRIED_GROUP_S = 0.01  # a life has its commits ten times as close as the program as it is
COMPACT_EVERY_S = 0.1
TARGETS = 10


def _answer(services: Services, message: Json) -> Json:
    """What the server's socket would answer."""
    numbers = {view.hostname: view.no for view in services.registry.snapshot.agents.values()}
    no, body = numbers[message["agent"]], message["body"]
    if message["kind"] == "hello":
        hello = codec.decode_handshake(body)
        answer = services.enrolment.reply(no, services.ingest.upto(no, hello.epoch or ""))
        return answer | {"set": codec.encode_targets(services.registry.message_for(no)) | {"sig": ""}}
    try:
        return services.ingest.submit(no, codec.decode_report(body))
    except WireError as error:
        refusal: Json = {"ok": False, "code": error.code, "message": error.message, "retry_after_s": 0}
        if error.code is ErrorCode.SEQ_GAP:
            refusal["expected"] = services.ingest.upto(no, body["epoch"]) + 1
        return refusal


def _keep_compacting(services: Services, stopping: threading.Event) -> None:
    """All that is measured in a life is old enough for it, so one part of an hour after the other becomes a chunk."""
    while not stopping.wait(COMPACT_EVERY_S):
        services.compaction.run()


def live(config: Path, store: type[SqliteRounds], line: socket.socket) -> None:
    """The child: answer until the other side hangs up, then end as a server does that is stopped."""
    assert "SqliteRounds" in vars(bundle), "the store has another name now; give it to the child here"
    vars(bundle)["SqliteRounds"] = store
    services = bundle.open_services(load(config))
    committer = threading.Thread(target=services.ingest.run, daemon=True)
    committer.start()
    stopping, saying = threading.Event(), threading.Lock()
    compactor = threading.Thread(target=_keep_compacting, args=(services, stopping), daemon=True)
    compactor.start()

    def work(message: Json) -> None:
        """One message, in a thread of the pool, for an answer may wait for a commit."""
        answer = json.dumps({"agent": message["agent"], "kind": message["kind"], "body": _answer(services, message)})
        with saying:
            line.sendall(answer.encode() + b"\n")

    with line, ThreadPoolExecutor(32) as pool, line.makefile("r") as lines:
        for text in lines:
            pool.submit(work, json.loads(text))
    stopping.set()
    compactor.join()
    services.ingest.stop()
    committer.join()
    services.close()


@dataclass
class Life:
    """One child, seen from outside."""

    line: socket.socket
    pid: int = 0
    _unread: bytes = field(default=b"", repr=False)

    def say(self, agent: SimAgent, kind: str, body: Json) -> bool:
        """Send to it; False if it is dead."""
        try:
            self.line.sendall(json.dumps({"agent": agent.name, "kind": kind, "body": body}).encode() + b"\n")
        except OSError:
            return False
        return True

    def hear(self, timeout_s: float) -> list[Json] | None:
        """What it said within the time; None once it is dead."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.line, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return []
        try:
            data = self.line.recv(1 << 16)
        except OSError:
            return None
        if not data:
            return None
        *whole, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(text) for text in whole]

    def end(self) -> int:
        """Hang up and wait for its end; the exit status as `os.waitpid` has it."""
        self.line.close()
        return os.waitpid(self.pid, 0)[1]

    def kill(self) -> None:
        """kill -9, also out of a stop."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()


class Lives:
    """One set of databases, agents whose rounds are `spacing_s` apart, and one life of a server after the other."""

    def __init__(self, run: Run, *, agents: int, spacing_s: float, batch: int) -> None:
        self.run, self._spacing_s, self._batch = run, spacing_s, batch
        home = run.home / "server"
        home.mkdir()
        server = HurtServer(home, 1)  # a port that nobody will open
        write_server(server, interval_s=1, mesh=False)
        self.config, self.data = server.config, server.data
        names = [f"agent-{n:02}" for n in range(agents)]
        pin = register(self.config, names, TARGETS)
        # Far enough in the past that what is measured in a hurry is never ahead of the server's clock.
        self._timeline = Timeline(-20 * 3600.0)
        self.agents = {name: SimAgent(name, self._timeline, run.home, pin) for name in names}

    def begin(self, store: type[SqliteRounds]) -> Life:
        """A child that has just been born."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ours.close()
                ingest.GROUP_S = HURRIED_GROUP_S
                live(self.config, store, theirs)
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        return Life(ours, pid)

    @contextmanager
    def life(self, store: type[SqliteRounds]) -> Iterator[Life]:
        """A child whose agents have shaken hands with it."""
        life = self.begin(store)
        try:
            for agent in self.agents.values():
                life.say(agent, "hello", codec.encode_handshake(agent.delivery.greet()))
            yield life
        finally:
            for agent in self.agents.values():
                agent.delivery.lost()

    def pump(self, life: Life, seconds: float, measure: bool = True) -> bool:
        """Measure, report and hear answers for so long, or until all is delivered if nothing is measured; False once
        the child is dead."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            heard = life.hear(0.05)
            if heard is None:
                return False
            for message in heard:
                self._hear(self.agents[message["agent"]], message)
            if not measure and all(agent.delivered for agent in self.agents.values()):
                return True
            if not self._speak(life, measure):
                return False
        return True

    def _hear(self, agent: SimAgent, message: Json) -> None:
        body = message["body"]
        if message["kind"] == "report":
            agent.delivery.on_ack(agent.delivery.in_flight or 0, body, time.monotonic())
            return
        targets: TargetSet = codec.decode_targets(body.pop("set"))
        agent.delivery.on_handshake(body)
        agent.targets = targets

    def _speak(self, life: Life, measure: bool) -> bool:
        for agent in self.agents.values():
            if agent.delivery.in_flight is not None or not agent.connected:
                continue
            if measure and agent.ring.last_seq - agent.delivery.upto < self._batch:
                self.measure(self.run.rng.randint(1, self._batch))
            report = agent.delivery.next_report(time.monotonic())
            if measure and report is None:  # it has given up all it had
                self.measure(1)
            if report is not None and not life.say(agent, "report", report.payload):
                return False
        return True

    def measure(self, rounds: int) -> None:
        """So many rounds of each agent, whatever becomes of them."""
        for _ in range(rounds):
            self._timeline.offset_s += self._spacing_s
            for agent in self.agents.values():
                agent.measure()

    def drain(self) -> None:
        """A healthy life that takes all that is left."""
        with self.life(SqliteRounds) as life:
            assert self.pump(life, 60.0, measure=False), "the last, healthy life died"
            left = [a.name for a in self.agents.values() if not a.delivered]
            assert not left, f"not drained: {left}"
            assert life.end() == 0

    def acked_early(self) -> int:
        """See oracle."""
        return acked_too_early(self.run.home, self.data)

    def verdict(self) -> Verdict:
        """See oracle."""
        self.close()
        return judge(self.run.home, self.data)

    def close(self) -> None:
        """No more events."""
        for agent in self.agents.values():
            agent.log.close()
