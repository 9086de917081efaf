"""Agent and server through kills, reboots, full disks, restored backups: nothing twice, lost only what was gone."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from pingmon_agent import segments
from pingmon_agent.delivery import Delivery
from pingmon_agent.ring import Ring
from pingmon_agent.session import SessionState
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake

from .shelf import ALL, Host, journal_of, no_room

AGENT = "6f1c2f9e-0000-4000-8000-000000000001"
Json = dict[str, Any]
IDENTITY = Handshake(passphrase="pass", hostname="probe-1", ip_address="192.0.2.1", version="1")


class Server:
    """Commits by the rules of the contract: a cursor per epoch, no hole that was not declared, no report of another
    epoch than that of the handshake."""

    def __init__(self) -> None:
        self.cursors: dict[str, int] = {}
        self.rows: list[tuple[str, int, int]] = []  # epoch, seq, value
        self.epoch = ""

    def greet(self, hello: Handshake) -> Json:
        assert hello.epoch is not None
        self.epoch = hello.epoch
        return {"state": "approved", "agent_id": AGENT, "upto": self.cursors.get(self.epoch, 0), "targets_rev": 1}

    def take(self, payload: Json) -> Json:
        report = codec.decode_report(payload)
        upto = self.cursors.get(report.epoch, 0)
        if report.epoch != self.epoch:
            return {"ok": False, "code": "E_STATE", "message": ""}
        expected = upto + 1
        if report.gap is not None and report.gap[0] <= expected:
            expected = max(expected, report.gap[1] + 1)
        if report.rounds[0].seq > expected:
            return {"ok": False, "code": "E_SEQ_GAP", "message": "", "expected": expected}
        fresh = [r for r in report.rounds if r.seq > upto]
        self.rows += [(r.epoch, r.seq, r.samples[0]) for r in fresh]
        self.cursors[report.epoch] = max([upto, *(r.seq for r in fresh)])
        return {"ok": True, "upto": self.cursors[report.epoch], "dup": len(report.rounds) - len(fresh)}

    def backup(self) -> tuple[dict[str, int], list[tuple[str, int, int]]]:
        return dict(self.cursors), list(self.rows)


class Life(RuleBasedStateMachine):
    """The life of an agent on one host. At its end all calms down, and what was measured is compared with what came."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.host = Host(Path(self.folder.name) / "ring")
        self.server, self.saved = Server(), Server().backup()
        self.count = 0
        self.gone: set[int] = set()  # values that the host itself lost
        self.flushed: set[int] = set()
        self.full = False
        self.begin()

    def begin(self) -> None:
        self.ring: Ring = self.host.agent()
        self.delivery = Delivery(self.ring, IDENTITY, lambda targets: None)
        self.line = False

    def connect(self) -> None:
        self.delivery.on_handshake(self.server.greet(self.delivery.greet()))
        self.line = True

    def cut(self) -> None:
        if self.line:
            self.delivery.lost()
        self.line = False

    def on_file(self) -> set[int]:
        return {k.round.samples[0] for c in self.ring._chapters for k in c.kept if k.filed}

    # -- what happens --

    @rule(count=st.integers(1, 5))
    def measure(self, count: int) -> None:
        if not self.count and not self.line:
            self.connect()  # nobody measures before the first targets came
        for _ in range(count):
            if self.full:
                with no_room():
                    self.host.measure(self.ring, self.count)
            else:
                self.host.measure(self.ring, self.count)
            self.count += 1
            self.host.wait(1)

    @rule(arrives=st.booleans(), heard=st.booleans())
    def report(self, arrives: bool, heard: bool) -> None:
        """One report; the line may break before it arrives, or before its acknowledgement does."""
        if not self.line or self.delivery.must_greet:
            self.connect()
        outgoing = self.delivery.next_report(self.host.now)
        if outgoing is None:
            return
        answer = self.server.take(outgoing.payload) if arrives else {}
        if not arrives or not heard:
            self.cut()
        else:
            self.hear(outgoing.token, answer)

    def hear(self, token: int, answer: Json) -> None:
        if self.full:
            with no_room():
                self.delivery.on_ack(token, answer, self.host.now)
        else:
            self.delivery.on_ack(token, answer, self.host.now)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        """Others fill the disk, or make room again."""
        self.full = full
        self.host.wait(11)

    @rule()
    def kill(self) -> None:
        """SIGKILL, and a start at once. Before it measures, it hears from the server: it has no targets else."""
        self.gone |= set(range(self.count)) - self.on_file()
        self.host.kill(self.ring)
        self.begin()
        if self.count:
            self.connect()

    @rule(seed=st.integers(0, 2**16), cut=st.booleans())
    @precondition(lambda self: self.count > 0)
    def damage(self, seed: int, cut: bool) -> None:
        """The same, and one of the files is damaged meanwhile."""
        self.gone |= set(range(self.count)) - self.on_file()
        self.host.kill(self.ring)
        rng, files = random.Random(seed), self.host.segments()
        if files:
            victim = rng.choice(files)
            data = bytearray(victim.read_bytes())
            place = rng.randrange(len(data))
            data[place] ^= 1 << rng.randrange(8)
            victim.write_bytes(data[:place] if cut else data)
        blocks = [block for path in files for block in segments.read(path.read_bytes()).blocks]
        self.gone |= set(range(self.count)) - {block.samples[0] for block in blocks if block.samples}
        self.begin()
        self.connect()

    @rule()
    @precondition(lambda self: not self.full)
    def flush(self) -> None:
        """The disk has all that is written up to here."""
        shutil.rmtree(self.host.directory.with_name("disk"), ignore_errors=True)
        shutil.copytree(self.host.directory, self.host.directory.with_name("disk"))
        self.flushed = self.on_file()

    @rule()
    @precondition(lambda self: self.host.directory.with_name("disk").exists())
    def power_cut(self) -> None:
        """The host is back with what the disk had."""
        self.gone |= set(range(self.count)) - self.flushed
        self.host.kill(self.ring)
        shutil.rmtree(self.host.directory)
        shutil.copytree(self.host.directory.with_name("disk"), self.host.directory)
        self.host.reboot(away_s=20)
        self.begin()
        if self.count:
            self.connect()

    @rule()
    def backup(self) -> None:
        self.saved = self.server.backup()

    @rule()
    def restore(self) -> None:
        """The server's databases are those of the backup again; its connections are gone."""
        self.cut()
        self.server.cursors, self.server.rows = dict(self.saved[0]), list(self.saved[1])

    def teardown(self) -> None:
        self.full = False
        self.cut()
        for _ in range(400):
            if not self.line or self.delivery.must_greet:
                self.connect()
            self.host.wait(0.1)
            outgoing = self.delivery.next_report(self.host.now)
            if outgoing is not None:
                self.delivery.on_ack(outgoing.token, self.server.take(outgoing.payload), self.host.now)
        came = [value for _, _, value in self.server.rows]
        self.host.close()
        self.folder.cleanup()

        assert self.delivery.state is SessionState.APPROVED
        assert self.ring.waiting() == 0
        assert len(came) == len(set(came)), "twice"
        assert set(range(self.count)) - set(came) <= self.gone, "lost"


TestLife = pytest.mark.slow(Life.TestCase)
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_restart_takes_one_handshake_per_epoch(tmp_path: Path) -> None:
    """After a reboot the old epoch is asked for first, then the new one, both on the same connection."""
    host, server = Host(tmp_path / "ring"), Server()
    ring = host.agent()
    delivery = Delivery(ring, IDENTITY, lambda targets: None)
    delivery.on_handshake(server.greet(delivery.greet()))
    for value in range(3):
        host.measure(ring, value)
    server.take(delivery.next_report(0).payload)  # type: ignore[union-attr]  # committed, and never heard of
    host.kill(ring)
    host.reboot()
    ring = host.agent()
    delivery = Delivery(ring, IDENTITY, lambda targets: None)

    delivery.on_handshake(server.greet(delivery.greet()))
    first = server.epoch
    assert delivery.must_greet
    delivery.on_handshake(server.greet(delivery.greet()))
    host.measure(ring, 3)
    report = delivery.next_report(0)

    assert report is not None
    assert server.take(report.payload) == {"ok": True, "upto": 1, "dup": 0}
    assert [value for _, _, value in server.rows] == [0, 1, 2, 3]
    assert (first != server.epoch, delivery.must_greet) == (True, False)
    host.close()


def test_an_epoch_whose_last_round_was_refused_holds_up_nothing(tmp_path: Path) -> None:
    """A closed epoch has no later round that could declare the gap: the next one is offered all the same."""
    host, server = Host(tmp_path / "ring"), Server()
    ring = host.agent()
    host.measure(ring, 0)
    host.kill(ring)
    host.reboot()
    ring = host.agent()
    delivery = Delivery(ring, IDENTITY, lambda targets: None)
    delivery.on_handshake(server.greet(delivery.greet()))
    fresh = host.measure(ring, 1)
    report = delivery.next_report(0)
    assert report is not None
    delivery.on_ack(report.token, {"ok": False, "code": "E_TARGET", "message": ""}, 0)

    assert delivery.next_report(0) is None
    assert delivery.must_greet
    delivery.on_handshake(server.greet(delivery.greet()))
    report = delivery.next_report(0)

    assert report is not None
    server.take(report.payload)
    assert server.rows == [(fresh.epoch, 1, 1)]
    host.close()


def test_a_page_that_turns_asks_for_a_handshake(tmp_path: Path) -> None:
    """The disk fills up: once the epoch on file is delivered, the answer to the acknowledgement is to greet again."""
    host, server = Host(tmp_path / "ring"), Server()
    ring = host.agent()
    delivery = Delivery(ring, IDENTITY, lambda targets: None)
    delivery.on_handshake(server.greet(delivery.greet()))
    host.measure(ring, 0)
    with no_room():
        host.measure(ring, 1)
        assert not journal_of(ring).healthy
        report = delivery.next_report(0)
        assert report is not None
        assert delivery.on_ack(report.token, server.take(report.payload), 0) is False

    delivery.on_handshake(server.greet(delivery.greet()))

    assert [r.samples[0] for r in ring.after(0, ALL)] == [1]
    assert delivery.next_report(0) is not None
    host.close()
