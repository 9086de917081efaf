"""The whole flow without sockets: the agent's delivery and the server's ingest, joined by a wire that misbehaves.

The wire cuts, repeats, delays and reorders messages as hypothesis likes; values are a function of the round, so nothing
can be lost, doubled or altered unnoticed.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pingmon.config import build
from pingmon.services.bundle import Services, open_services
from pingmon.services.views import SetView
from pingmon_agent.delivery import Delivery
from pingmon_agent.ring import Ring
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake, TargetSet, WireError

from .conftest import FakeClock, passphrase

Json = dict[str, Any]


def value(seq: int, column: int) -> int:
    """What the fake engine measured: checkable, and now and then a loss."""
    return -1 if (seq + column) % 7 == 0 else seq * 1000 + column


@dataclass
class Wire:
    """Carries messages as JSON text between one agent and the services, or does not."""

    services: Services
    delivery: Delivery
    random: Random
    epoch: str = ""
    agent_no: int | None = None
    log: list[str] = field(default_factory=list)
    # acknowledgements on their way back: (token, body)
    returning: list[tuple[int, Json]] = field(default_factory=list)

    def connect(self) -> None:
        """A new connection: handshake, then the targets."""
        self.delivery.lost()
        self.returning.clear()
        hello = self.delivery.greet("192.0.2.1")
        self.agent_no = self.services.enrolment.greet(hello, "192.0.2.1").agent_no
        self.epoch = hello.epoch or ""
        upto = self.services.ingest.upto(self.agent_no, self.epoch)
        self.delivery.on_handshake(_through(self.services.enrolment.reply(self.agent_no, upto)))

    def push_targets(self) -> None:
        assert self.agent_no is not None
        message = _through(codec.encode_targets(self.services.registry.message_for(self.agent_no)) | {"sig": ""})
        assert self.delivery.on_targets(message)["ok"]

    def carry(self, now: float, kind: str) -> None:
        """Send what the agent wants to send, under one of the wire's moods."""
        outgoing = self.delivery.next_report(now)
        if outgoing is not None and kind != "swallow":
            for _ in range(2 if kind == "repeat" else 1):
                self.returning.append((outgoing.token, self._serve(_through(outgoing.payload))))
        if kind == "reorder":
            self.random.shuffle(self.returning)
        if kind == "cut" or (kind == "swallow" and outgoing is not None):
            self.connect()
        if kind != "delay":
            for token, body in self.returning:
                self.delivery.on_ack(token, _through(body), now)
            self.returning.clear()

    def _serve(self, payload: Json) -> Json:
        assert self.agent_no is not None
        try:
            return self.services.ingest.submit(self.agent_no, codec.decode_report(payload))
        except WireError as error:
            upto = self.services.ingest.upto(self.agent_no, self.epoch)
            return {"ok": False, "code": error.code, "message": error.message, "retry_after_s": 1, "expected": upto + 1}


def _through(message: Json) -> Json:
    """A message as the other side gets it."""
    text: Json = json.loads(json.dumps(message))
    return text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pingmon.services.ingest.GROUP_S", 0)  # nothing here waits for real time
        yield tmp_path_factory.mktemp("flow")


@dataclass
class Agent:
    """An agent without sockets: ring, delivery, fake engine."""

    clock: FakeClock
    secret: str
    targets: list[TargetSet] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ring = Ring(self.clock.monotonic)
        identity = Handshake(passphrase=self.secret, hostname="probe-1", ip_address="192.0.2.1", version="1.0")
        self.delivery = Delivery(self.ring, identity, self.targets.append, wall_ms=self.clock.wall_ms)

    def measure(self) -> None:
        current = self.targets[-1]
        seq = self.ring.last_seq + 1
        self.ring.append(
            started_ms=self.clock.wall_ms(),
            revision=current.revision,
            samples=array("i", [value(seq, t.id) for t in current.targets]),
            disturbed=False,
        )


MOODS = st.sampled_from(["good", "good", "repeat", "delay", "reorder", "cut", "swallow", "down", "retarget"])


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moods=st.lists(MOODS, min_size=5, max_size=40), seed=st.integers(0, 2**16))
def test_nothing_is_lost_doubled_or_altered(home: Path, moods: list[str], seed: int) -> None:
    """Whatever the wire did, after it calms down every round is stored exactly once with the values measured."""
    clock = FakeClock()
    data = home / f"{Random().getrandbits(64):x}"
    services = open_services(build({"server": {"data_dir": str(data)}}, {}), clock)
    committer = threading.Thread(target=services.ingest.run)
    committer.start()
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = Agent(clock, passphrase(services))
    wire = Wire(services, agent.delivery, Random(seed))
    try:
        wire.connect()
        services.registry.approve("probe-1", "test")
        wire.connect()
        wire.push_targets()
        for i, mood in enumerate(moods + ["good"] * 60):
            if i < len(moods):
                agent.measure()
                clock.advance(5)
            if mood == "retarget":
                services.registry.put_targets([("a", "192.0.2.10"), (f"x{i}", "192.0.2.12")], "test")
                wire.push_targets()
            if mood != "down":
                wire.carry(clock.monotonic(), mood)
            clock.advance(0 if i < len(moods) else 6)
        rows = list(services.rounds.since(0))
        in_memory = {t.id: services.recent.pair(rows[0].agent_no, t.id, 0) for t in services.registry.targets()}
        sets = {r.revision: services.registry.target_set(r.agent_no, r.revision) for r in rows}
    finally:
        services.ingest.stop()
        committer.join(5)
        services.close()

    assert [r.seq for r in rows] == list(range(1, len(moods) + 1))
    for r in rows:
        known = sets[r.revision]
        assert known is not None
        assert r.samples.tolist() == [value(r.seq, target_id) for target_id in known.target_ids]
    for target_id, samples in in_memory.items():
        expected = [value(r.seq, target_id) for r in rows if target_id in _ids(sets[r.revision])]
        assert [sample for _, sample, _ in samples] == expected


def _ids(view: SetView | None) -> tuple[int, ...]:
    return view.target_ids if view else ()
