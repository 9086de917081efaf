"""Simulated agents: the real ring, delivery and uplink of `pingmon_agent`; measurements and clock are made up.

A sample is `value_of(agent, target, number)`, so that contents can be checked. Time is real time plus an offset that a
fault may move: half an hour without the server takes a second. Must not know: the server's database.
"""

from __future__ import annotations

import functools
import hashlib
import random
import threading
import time
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pingmon_agent.answers import Answer
from pingmon_agent.backoff import Backoff
from pingmon_agent.config import Server as Address
from pingmon_agent.delivery import Delivery, Outgoing
from pingmon_agent.door import Door
from pingmon_agent.keep import Keep
from pingmon_agent.ring import Ring
from pingmon_agent.session import SessionState
from pingmon_agent.uplink import Uplink
from pingmon_agent.wire.contract import PLAIN_TAG, Handshake, TargetSet
from pingmon_agent.wire.seal import Identity

from .journal import Journal
from .oracle import SideLog

Json = dict[str, Any]
VERSION = "faults"
HURRY = 0.1  # pauses between connections are a tenth of what they are: 20 faults in a row would wait for minutes


class Timeline:
    """Boot time and wall clock of all agents: the real ones and an offset, in seconds."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def boot(self) -> float:
        """What a ring takes the age of a round from; only ever rises."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.offset_s

    def wall_ms(self, step_s: float = 0.0) -> int:
        """What an agent takes for the time whose clock is wrong by `step_s`."""
        return time.time_ns() // 1_000_000 + round((self.offset_s + step_s) * 1000)


def value_of(agent: str, target: int, number: int) -> int:
    """A round-trip time in us, or now and then an outcome code, that only this agent, target and round has."""
    mixed = zlib.crc32(f"{agent}/{target}/{number}".encode())
    return -1 - mixed % 7 if mixed % 50 == 0 else mixed % 400_000


class Witness(Delivery):
    """The real Delivery, whose acknowledgements and gaps go into the side log, and its waiting into `waits`."""

    log: SideLog
    ring: Ring
    forgets = ""  # a guard removed: what was "sent" once, or "acked", is not kept for another time

    silenced: Callable[[], bool] = staticmethod(lambda: False)  # a guard removed: it reports nothing while this is true

    def __init__(self, ring: Ring, identity: Handshake, on_targets: Callable[[TargetSet], None], log: SideLog) -> None:
        super().__init__(ring, identity, on_targets)
        self.ring, self.log = ring, log
        self.upto = 0
        self.waits: list[tuple[float, float]] = []  # when an acknowledgement came, how long it took
        self.told_to_wait = 0  # refusals with retry_after_s
        self.first_report_ms: float | None = None  # real time; set it to None to be told of the next one
        self._sent_at, self._sent_seq, self._acked_seq, self._sent_epoch = 0.0, 0, 0, ""

    def next_report(self, now: float) -> Outgoing | None:
        """See Delivery."""
        gone = {"sent": self._sent_seq, "acked": self._acked_seq}.get(self.forgets, 0)
        if gone > self._given_up and self.ring.epoch == self._sent_epoch and self.in_flight is None:
            self._given_up, self._reason = gone, "expired"
        outgoing = None if self.silenced() else super().next_report(now)
        if outgoing is None:
            return None
        payload = outgoing.payload
        self._sent_at, self._sent_seq = time.monotonic(), payload["rounds"][-1]["seq"]
        self._sent_epoch = payload["epoch"]
        if self.first_report_ms is None:
            self.first_report_ms = time.time() * 1000
        if "gap" in payload:
            first, last, reason = payload["gap"]
            self.log.gave_up(payload["epoch"], first, last, reason)
        return outgoing

    def on_ack(self, token: int, body: object, now: float) -> bool:
        """See Delivery."""
        if token == self.in_flight and isinstance(body, dict):
            self.waits.append((time.monotonic(), time.monotonic() - self._sent_at))
            self.told_to_wait += "retry_after_s" in body
            self._note(body.get("upto") if body.get("ok") is True else None, self._sent_epoch)
        return super().on_ack(token, body, now)

    def on_handshake(self, body: object) -> Answer:
        """See Delivery."""
        epoch = self.ring.epoch  # with the last word about it the ring may go on to the next one
        answer = super().on_handshake(body)
        if answer.state is SessionState.APPROVED and isinstance(body, dict):
            self._note(body.get("upto"), epoch)
        return answer

    def _note(self, upto: object, epoch: str) -> None:
        if isinstance(upto, int):
            self.log.acked(epoch, upto)
            self.upto, self._acked_seq = upto, max(upto, self._acked_seq)


def identity_of(name: str) -> Identity:
    """The key of a simulated agent: the same in every process."""
    return Identity(hashlib.sha256(name.encode()).digest())


class SimAgent:
    """One agent without probes and without a connection: see `connect`."""

    by_wall_clock = False  # a guard removed: the age of a round is taken from a clock that steps

    def __init__(self, name: str, timeline: Timeline, folder: Path, pin: str, make_ring: Callable[..., Ring] = Ring):
        self.name, self.step_s, self._timeline = name, 0.0, timeline
        self.log = SideLog(folder / f"{name}.side")
        self.ring = make_ring(self.wall_s if self.by_wall_clock else timeline.boot)
        self.targets: TargetSet | None = None
        identity = Handshake(passphrase=PLAIN_TAG, hostname=name, ip_address="127.0.0.1", version=VERSION)
        self.delivery = Witness(self.ring, identity, self._load, self.log)
        self.door = Door(Keep(identity_of(name), pin, known=True), lambda: timeline.wall_ms(self.step_s))
        self.uplink: Uplink | None = None
        self._number = time.time_ns() // 1_000_000  # a process that comes after this one goes on with other values

    def wall_s(self) -> float:
        """What this agent takes for the time, in seconds."""
        return self._timeline.wall_ms(self.step_s) / 1000

    def _load(self, targets: TargetSet) -> None:
        self.targets = targets

    def connect(self, address: Address, draw: Callable[[float, float], float]) -> None:
        """Go to the server and stay there, over a real connection; `draw` is the chance in its pauses."""
        self.uplink = Uplink(address, self.delivery, self.door, start_spread_s=0.2, on_answer=lambda _: None)
        self.uplink._backoff = Backoff(draw)
        self.uplink.start()

    def measure(self) -> None:
        """One round, now, if there is anything to measure."""
        if self.targets is None:
            return
        self._number += 1
        values = array("i", [value_of(self.name, t.id, self._number) for t in self.targets.targets])
        at_ms = self._timeline.wall_ms(self.step_s)
        self.log.about_to(at_ms, values.tobytes())
        kept = self.ring.append(started_ms=at_ms, revision=self.targets.revision, samples=values, disturbed=False)
        assert kept is not None
        self.log.created(kept.epoch, kept.seq, at_ms, values.tobytes())
        if self.uplink is not None:
            self.uplink.notify()

    @property
    def connected(self) -> bool:
        """Whether the server takes reports from it now."""
        return self.delivery.state is SessionState.APPROVED

    @property
    def delivered(self) -> bool:
        """Whether the server says that it has everything."""
        return self.connected and self.delivery.upto == self.ring.last_seq and self.ring.waiting() == 0

    def stop(self) -> None:
        """Hang up."""
        if self.uplink is not None:
            self.uplink.stop(0.0)
        self.ring.close()
        self.log.close()


def _hurried(chance: random.Random, hurry: float, low: float, high: float) -> float:
    return hurry * chance.uniform(low, high)


class Fleet:
    """All simulated agents of a fault, and the thread in which they measure every `every_s`."""

    every_s = 1.0

    def __init__(self, agents: list[SimAgent], timeline: Timeline, journal: Journal) -> None:
        self.agents, self.timeline, self._journal = agents, timeline, journal
        self._stop, self._measuring = threading.Event(), threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self, address: Address, seed: int, hurry: float = HURRY) -> None:
        """Connect all and begin to measure."""
        for agent in self.agents:
            chance = random.Random(f"{seed} {agent.name}")
            agent.connect(address, functools.partial(_hurried, chance, hurry))
        self._measuring.set()
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._measuring.wait()
            with self._turn:
                for agent in self.agents if not self._stop.is_set() else ():
                    agent.measure()
            due = max(due + self.every_s, time.monotonic() - self.every_s)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def fast_forward(self, seconds: int) -> None:
        """Let this much time pass for the agents, who measure once in every second of it."""
        self._journal.note(f"{seconds} s pass for the agents")
        with self._turn:
            for _ in range(seconds):
                self.timeline.offset_s += 1.0
                for agent in self.agents:
                    agent.measure()

    def drain(self, deadline_s: float = 120.0) -> float:
        """Measure no more and wait until the server has everything; the seconds that took. AssertionError if not."""
        self._measuring.clear()
        with self._turn:
            self._journal.note("draining")
        return self.wait_delivered(deadline_s)

    def wait_delivered(self, deadline_s: float) -> float:
        """Until the server has everything that was measured so far; the seconds that took. AssertionError if not."""
        began = time.monotonic()
        while late := [a for a in self.agents if not a.delivered]:
            if time.monotonic() - began > deadline_s:
                facts = [f"{a.name} {a.delivery.state} {a.delivery.upto}/{a.ring.last_seq}" for a in late]
                raise AssertionError(f"not delivered within {deadline_s:g} s: {facts}")
            time.sleep(0.02)
        return time.monotonic() - began

    def go_on(self) -> None:
        """Measure again after `drain`."""
        self._measuring.set()

    def wait_back(self, deadline_s: float = 60.0) -> float:
        """Until all are connected and approved; the seconds that took."""
        began = time.monotonic()
        while away := [a.name for a in self.agents if not a.connected]:
            if time.monotonic() - began > deadline_s:
                raise AssertionError(f"not back within {deadline_s:g} s: {away}")
            time.sleep(0.02)
        return time.monotonic() - began

    def waits(self, since: float = 0.0) -> list[float]:
        """Seconds that acknowledgements took since then (monotonic)."""
        return [took for agent in self.agents for at, took in list(agent.delivery.waits) if at >= since]

    def stop(self) -> None:
        """Hang up and end."""
        self._stop.set()
        self._measuring.set()
        if self._thread.is_alive():
            self._thread.join()
        enders = [threading.Thread(target=agent.stop) for agent in self.agents]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
