"""The agent under systemd's eyes: real processes of which a thread stops, and what they tell a real NOTIFY_SOCKET."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pingmon_agent import flush
from pingmon_agent.flush import Flusher
from pingmon_agent.pulse import Pulse
from pingmon_agent.service import Service
from pingmon_agent.wire.notify import Notifier
from tests.support.processes import (
    Agent,
    Server,
    free_port,
    make_pki,
    running_agent,
    running_server,
    wait_for,
    write_agent,
)
from tests.support.systemd import ALIVE, Systemd, listening

from .pretend import PASSPHRASE

WATCHDOG_S = 1.5


@contextmanager
def alone(
    home: Path, systemd: Systemd, program: tuple[str, ...] = ("-m", "pingmon_agent"), metrics: str = ""
) -> Iterator[Agent]:
    """An agent whose server does not answer; `metrics` is where it serves its pages."""
    server = Server(home / "server", free_port())
    server.directory.mkdir()
    make_pki(server.directory)
    agent = Agent(server, home / "agent", "probe-1", environment=systemd.environment(WATCHDOG_S), program=program)
    write_agent(agent, url=server.url.replace("https", "wss"), ip_address="127.0.0.1", passphrase=PASSPHRASE)
    agent.config.write_text(agent.config.read_text().replace('listen = ""', f'listen = "{metrics}"'))
    agent.start()
    assert agent.child is not None
    try:
        yield agent
    finally:
        agent.child.process.kill()
        agent.child.process.wait()


def log_of(agent: Agent) -> str:
    return (agent.directory / "agent.log").read_text()


@pytest.mark.e2e
def test_an_agent_without_a_server_is_ready_and_alive(tmp_path: Path) -> None:
    """It measures as soon as it has targets, whoever answers: nothing is to be mended by a restart."""
    with listening(tmp_path / "notify") as systemd:
        with alone(tmp_path, systemd) as agent:
            systemd.wait_for("READY=1")
            assert ALIVE not in systemd.heard
            assert systemd.fed_for(3 * WATCHDOG_S, WATCHDOG_S)
            assert agent.child is not None
            agent.child.process.terminate()
            systemd.wait_for("STOPPING=1")
            assert agent.child.process.wait(5) == 0
        rest = systemd.next(0.1)

    assert "STATUS=offline, 0 targets, not connected" in systemd.heard
    assert rest is None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("word", "who"), [("rounds", "the round loop"), ("uplink", "the uplink"), ("dead", "the uplink")]
)
def test_an_agent_of_which_a_loop_stops_is_not_called_alive(tmp_path: Path, word: str, who: str) -> None:
    """The round loop or the uplink hangs, or the uplink's thread is gone; the log says which."""
    program = ("-m", "tests.agent.freezing", str(tmp_path / "order"))
    with listening(tmp_path / "notify") as systemd, alone(tmp_path, systemd, program) as agent:
        systemd.wait_for("READY=1")
        assert systemd.fed_for(2 * WATCHDOG_S, WATCHDOG_S)
        (tmp_path / "order").write_text(word)

        wait_for(lambda: not systemd.fed_for(0.5, WATCHDOG_S), "systemd to lose patience")
        assert log_of(agent).count(f"no sign of life from {who}; systemd restarts this agent") == 1


@pytest.mark.e2e
def test_an_agent_is_alive_while_it_waits_for_its_next_round(tmp_path: Path) -> None:
    """With rounds an hour apart as well; the line for people follows what happens."""
    with listening(tmp_path / "notify") as systemd, running_server(tmp_path / "server", interval_s=3600) as server:
        server.admin("targets", "add", "here", "127.0.0.1")
        program = ("-m", "tests.agent.freezing", str(tmp_path / "order"))  # never given: only less patient
        environment = systemd.environment(WATCHDOG_S)
        with running_agent(server, tmp_path / "agent", "probe-1", environment=environment, program=program) as agent:
            systemd.wait_for("READY=1")
            agent.approve()
            systemd.wait_for("STATUS=approved, 1 targets, connected")

            assert systemd.fed_for(4 * WATCHDOG_S, WATCHDOG_S)
    assert "no sign of life" not in log_of(agent)


class Hand:
    """A service whose loops and clock a test moves by hand."""

    def __init__(self, systemd: Systemd) -> None:
        self.now, self.begun, self.stopped, self.systemd = 1000.0, False, {"a": False, "b": False}, systemd
        stopped: dict[str, Callable[[], bool]] = {"a": lambda: self.stopped["a"], "b": lambda: self.stopped["b"]}
        self.service = Service(
            Notifier(systemd.address, 30.0),
            begun=lambda: self.begun,
            stopped=stopped,
            status=lambda: "fine",
            now=lambda: self.now,
        )

    def pass_by(self, seconds: int) -> int:
        """How many signs of life are given while time passes."""
        before = self.systemd.heard.count(ALIVE)
        for _ in range(seconds):
            self.now += 1
            self.service.turn()
            while self.systemd.next(0.001):
                pass
        return self.systemd.heard.count(ALIVE) - before


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[Hand]:
    with listening(tmp_path / "notify") as systemd:
        yield Hand(systemd)


def test_a_sign_of_life_needs_every_loop(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Not ready before the rounds begin; three signs in the time that systemd waits; one word about what stopped."""
    caplog.set_level("INFO")
    assert (hand.pass_by(5), "READY=1" in hand.systemd.heard) == (0, False)
    hand.begun = True
    assert (hand.pass_by(31), hand.systemd.heard.count("READY=1")) == (3, 1)
    for name in ("a", "b"):
        hand.stopped[name] = True
        assert hand.pass_by(60) == 0
        hand.stopped[name] = False
        assert hand.pass_by(1) == 1

    assert "STATUS=no sign of life from b; fine" in hand.systemd.heard
    assert caplog.text.count("no sign of life from b") == caplog.text.count("b is back") == 1


def test_a_pulse_is_a_word_that_can_be_broken() -> None:
    """What a step may take is what was said before it, and some slack."""
    now = [0.0]
    pulse = Pulse(10.0, lambda: now[0])
    assert (pulse.begun, pulse.stopped) == (False, False)
    pulse.beat(60.0)
    now[0] = 70.0
    assert (pulse.begun, pulse.stopped) == (True, False)
    now[0] = 70.1
    assert pulse.stopped
    pulse.beat()
    now[0] = 80.1
    assert not pulse.stopped


def test_a_job_is_done_by_the_thread_even_where_nobody_listens() -> None:
    """A bug in one is survived."""
    service = Service(Notifier(), begun=lambda: True, stopped={}, status=lambda: "")
    done = threading.Event()
    service.start()
    service.ask(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    service.ask(done.set)

    assert done.wait(5)
    service.stop()
    service._thread.join(5)
    assert not service._thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_flusher_that_died_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was not needed yet, that works, or that was told to stop has not died."""
    flusher = Flusher(tmp_path, every_s=0.0)
    assert not flusher.died
    flusher.dirty(tmp_path / "a")
    wait_for(lambda: flusher.flushes, "a flush")
    assert not flusher.died

    def end(_path: Path) -> None:
        raise SystemExit

    monkeypatch.setattr(flush, "_sync", end)
    flusher.dirty(tmp_path / "a")
    wait_for(lambda: flusher.died, "its death")
    flusher.stop()
    assert not flusher.died


def test_a_long_pause_is_a_chain_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uplink stays away for up to an hour, and whoever watches sees it turn every few seconds."""
    from pingmon_agent import uplink

    monkeypatch.setattr(uplink, "_LONGEST_WAIT_S", 0.01)
    told: list[float] = []
    waiting = object.__new__(uplink.Uplink)
    waiting._stopping, waiting.pulse = threading.Event(), Pulse(0.0)
    monkeypatch.setattr(waiting.pulse, "beat", told.append)
    began = time.monotonic()
    waiting._wait(0.2)

    assert 0.2 <= time.monotonic() - began < 5.0
    assert len(told) > 5
    assert set(told) == {0.01}
