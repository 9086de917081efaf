"""The uplink's own timers, shortened, in this process against a real server: what happens when nothing comes."""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pingmon_agent import uplink as module
from pingmon_agent.answers import Answer
from pingmon_agent.config import Server
from pingmon_agent.delivery import Delivery
from pingmon_agent.door import Door
from pingmon_agent.keep import Keep
from pingmon_agent.link import Link
from pingmon_agent.ring import Ring
from pingmon_agent.tls import client_context
from pingmon_agent.uplink import Uplink
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake, TargetSet
from pingmon_agent.wire.seal import Identity

from .certificates import Authority
from .pretend import APPROVED, PASSPHRASE, PIN, PretendServer, targets

pytestmark = pytest.mark.e2e


class Line:
    """An uplink with a ring, and the server it talks to."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "ca")
        self.server = PretendServer(authority.issue("127.0.0.1"))
        self.ring = Ring(time.monotonic)
        self.sets: list[TargetSet] = []
        self.answers: list[Answer] = []
        identity = Handshake(passphrase="p", hostname="probe-1", ip_address="127.0.0.1", version="1")
        self.settings = Server(
            url=f"wss://127.0.0.1:{self.server.port}", ca_file=str(authority.file), passphrase_file="-"
        )
        delivery = Delivery(self.ring, identity, self.sets.append)
        self.door = Door(Keep(Identity(bytes([3]) * 32), PIN, PASSPHRASE), lambda: 1_000)
        self.uplink = Uplink(self.settings, delivery, self.door, start_spread_s=0.0, on_answer=self.answers.append)

    def close(self) -> None:
        """End both."""
        self.uplink.stop(0.0)
        self.server.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A line whose agent has not been started yet."""
    made = Line(tmp_path)
    yield made
    made.close()


def test_a_handshake_without_answer_ends_the_connection(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It hangs up, says why once, and tries again."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.3)
    line.server.tell("set", answer_handshakes=False)
    line.uplink.start()
    for _ in range(3):
        line.server.wait("handshake")

    assert caplog.text.count("ended before the server answered: no answer to the handshake in time") == 1
    assert line.uplink.counts.faults == 0


def test_a_report_without_acknowledgement_ends_the_connection(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report counts as not sent, and after the next handshake it goes out from where the server stands."""
    monkeypatch.setattr(module, "ACK_TIMEOUT_S", 0.3)
    line.server.tell("set", handshake_answer=APPROVED, answer_reports=False)
    line.ring.append(started_ms=1, revision=1, samples=array("i", [7]), disturbed=False)
    line.uplink.start()
    line.server.wait("report")
    line.server.wait("handshake")
    line.server.tell("set", answer_reports=True)
    again = line.server.wait("report")["data"]["rounds"][0]

    assert (again["seq"], again["rtt"]) == (1, [7])


def test_promised_targets_that_do_not_come_are_asked_for(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Approved but no set: it comes back on a new connection; once the set is here it is quiet."""
    monkeypatch.setattr(module, "TARGETS_WAIT_S", 1.0)  # the set below must make it in time on a busy machine
    line.server.tell("set", handshake_answer=APPROVED)
    line.uplink.start()
    line.server.wait("connect")
    line.server.wait("connect")
    line.server.wait("handshake")
    line.server.tell("targets", body=targets("192.0.2.1"))
    line.server.wait("targets_ack")

    assert line.server.nothing("connect", 2.5)
    assert [s.revision for s in line.sets] == [1]


def test_waiting_for_a_decision_it_asks_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push may be lost: pending asks by itself, on the same connection."""
    monkeypatch.setattr("pingmon_agent.backoff.SLOW_S", 0.3)
    line.server.tell("set", handshake_answer={"state": "pending", "retry_after_s": 0})
    line.uplink.start()
    for _ in range(3):
        line.server.wait("handshake")

    assert line.uplink.counts.connections == 1


def test_senseless_messages_are_survived(line: Line) -> None:
    """Wrong shapes in every event: refused or ended, never a bug, and a good server afterwards is served."""
    line.server.tell("set", handshake_answer={"state": "approved"})
    line.uplink.start()
    line.server.wait("handshake")
    line.server.tell("set", handshake_answer=APPROVED)
    line.server.wait("handshake", where=lambda seen: seen["answer"] == APPROVED)
    for body in (None, [], {"targets": 1}):
        line.server.tell("targets", body=body)
        refused = line.server.wait("targets_ack")["data"][0]
        assert (refused["ok"], refused["code"]) == (False, "E_SIGNATURE")
    line.server.tell("targets", body=targets("192.0.2.1") | {"targets": 1})
    refused = line.server.wait("targets_ack")["data"][0]
    assert (refused["ok"], refused["code"]) == (False, "E_MALFORMED")
    line.server.tell("push", body=[1])
    line.server.wait("handshake")
    line.server.tell("targets", body=targets("192.0.2.1"))

    assert line.server.wait("targets_ack")["data"][0]["ok"] is True
    assert line.uplink.counts.faults == 0


def test_a_closed_link_leaves_no_descriptor_and_no_thread(line: Line) -> None:
    """Even from a server that does not say goodbye, and that keeps its end open."""
    link, before = Link(), set(threading.enumerate())
    tls = link.open(line.settings, client_context(line.settings.ca_file))
    threads = set(threading.enumerate()) - before
    line.server.freeze()
    began = time.monotonic()
    link.close()

    assert time.monotonic() - began < 5
    assert tls.fileno() == -1
    assert threads
    for thread in threads:
        thread.join(5)
    assert [thread.name for thread in threads if thread.is_alive()] == []


def test_another_epoch_is_greeted_on_the_same_connection(line: Line) -> None:
    """The server knows more than the agent: at once a handshake under a fresh epoch, and then the report."""
    first = line.ring.epoch
    line.server.tell("set", handshake_answer=APPROVED, epochs={first: 40})
    line.ring.append(started_ms=1, revision=1, samples=array("i", [7]), disturbed=False)
    line.uplink.start()
    greeted = [codec.decode_handshake(line.server.wait("handshake")["data"]).epoch for _ in range(2)]

    reported = codec.decode_report(line.server.wait("report")["data"])

    assert greeted == [first, reported.epoch]
    assert reported.epoch == line.ring.epoch != first
    assert line.uplink.counts.connections == 1


def test_a_server_that_always_knows_more_is_not_flooded(line: Line) -> None:
    """Each answer makes a new epoch, and each greeting waits longer than the one before."""
    line.server.tell("set", handshake_answer=APPROVED, upto=40)
    line.ring.append(started_ms=1, revision=1, samples=array("i", [7]), disturbed=False)
    line.uplink.start()
    moments = []
    for _ in range(8):
        line.server.wait("handshake")
        moments.append(time.monotonic())

    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses[-1] > 0.005 * 2**7 * 0.9
