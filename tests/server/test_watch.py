"""The server under systemd's eyes: real processes that stop working inside, and what they tell a real NOTIFY_SOCKET."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pingmon.services.bundle import Services
from pingmon.vitals import LifelessError, committer
from pingmon.watch import FRESH_S, Watch
from pingmon_agent.wire.notify import Notifier
from tests.agent.certificates import Authority, Leaf
from tests.support.processes import Server, running_server, wait_for
from tests.support.systemd import ALIVE, Systemd, listening

from .test_concurrency import PRELUDE, run

WATCHDOG_S = 3.0  # a check is believed for a second, so a second after this one a service is as good as dead


@contextmanager
def watched(home: Path, mode: str = "eventlet") -> Iterator[tuple[Server, Systemd]]:
    """A server that systemd has seen ready, and that can be told to stop working by writing to `home`/order."""
    program = ("-m", "tests.server.freezing", str(home / "order"))
    with listening(home / "notify") as systemd:
        environment = systemd.environment(WATCHDOG_S)
        with running_server(home / "server", mode=mode, environment=environment, program=program) as server:
            systemd.wait_for("READY=1")
            yield server, systemd
            assert server.child is not None
            server.child.process.kill()  # one that hangs inside would not stop when asked to


def order(home: Path, word: str) -> None:
    (home / "new").write_text(word)
    (home / "new").rename(home / "order")


def lines_of(server: Server, words: str) -> list[str]:
    return [line for line in (server.directory / "server.log").read_text().splitlines() if words in line]


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["eventlet", "gevent", "threading"])
def test_a_server_says_how_it_is(tmp_path: Path, mode: str) -> None:
    """Ready once it answers, alive again and again, a line for people, and its end; asking itself counts nothing."""
    with listening(tmp_path / "notify") as systemd:
        with running_server(tmp_path / "server", mode=mode, environment=systemd.environment(WATCHDOG_S)) as server:
            systemd.wait_for("READY=1")
            before = systemd.heard[:-1]
            assert systemd.fed_for(2 * WATCHDOG_S, WATCHDOG_S)
            metrics = server.session().request("/metrics")[1]
            assert server.child is not None
            server.child.process.terminate()
            systemd.wait_for("STOPPING=1")
        rest = systemd.next(0.1)

    assert ALIVE not in before
    assert any(line == f"STATUS=starting, 0 agents connected, {server.url}" for line in systemd.heard)
    assert "pingmon_server_bad_connections_total 0.0" in metrics
    assert "pingmon_server_refused_connections_total 0.0" in metrics
    assert rest is None
    assert systemd.heard.count("READY=1") == 1


@pytest.mark.e2e
def test_without_a_watchdog_there_is_no_sign_of_life(tmp_path: Path) -> None:
    """Ready is said all the same, at an abstract socket too."""
    with listening(f"@pingmon-test-watch-{os.getpid()}") as systemd:
        with running_server(tmp_path / "server", environment=systemd.environment()):
            systemd.wait_for("READY=1")
        while systemd.next(0.1):
            pass

    assert ALIVE not in systemd.heard
    assert systemd.heard[-1] == "STOPPING=1"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("mode", "word"), [("eventlet", "committer"), ("eventlet", "dead"), ("eventlet", "hub"), ("gevent", "hub"),
                       ("gevent", "committer"), ("threading", "dead")]
)  # fmt: skip
def test_a_server_that_hangs_inside_is_not_called_alive(tmp_path: Path, mode: str, word: str) -> None:
    """A committer that waits for ever, one that died, a hub that does not turn: no sign of life for as long as it takes
    systemd to act; all but a hub that hangs say which it is."""
    with watched(tmp_path, mode) as (server, systemd):
        assert systemd.fed_for(WATCHDOG_S, WATCHDOG_S)
        order(tmp_path, word)

        wait_for(lambda: not systemd.fed_for(1.0, WATCHDOG_S), "systemd to lose patience")
        said = lines_of(server, "no sign of life from the committer")
        assert len(said) == (word != "hub")
        assert bool(systemd.next(0.5)) is False or word != "hub"


@pytest.mark.e2e
def test_a_database_that_hangs_is_not_called_alive(tmp_path: Path) -> None:
    """One whose file never opens; once it answers again, so does the sign of life."""
    with watched(tmp_path) as (server, systemd):
        samples, aside = server.directory / "data/samples.db", server.directory / "data/aside"
        samples.rename(aside)
        os.mkfifo(samples)
        wait_for(lambda: not systemd.fed_for(1.0, WATCHDOG_S), "systemd to lose patience")
        (line,) = lines_of(server, "no sign of life from the databases")
        os.close(os.open(samples, os.O_RDWR | os.O_NONBLOCK))  # wakes those who wait for it to open
        aside.rename(samples)

        systemd.wait_for(ALIVE)
        assert "systemd restarts this server unless it comes back" in line
        wait_for(lambda: lines_of(server, "the databases is back") or None, "the log to say so")


@pytest.mark.e2e
def test_a_server_that_waits_for_its_disk_is_alive(tmp_path: Path) -> None:
    """Its databases are gone: it goes on without and says so, and a restart would take away what it still shows."""
    with watched(tmp_path) as (server, systemd):
        for name in ("samples.db", "pingmon.db"):
            (server.directory / "data" / name).rename(server.directory / "data" / f"{name}.aside")
        wait_for(lambda: server.visitor().request("/-/ready")[0] == 503, "the server to say so")

        assert systemd.fed_for(2 * WATCHDOG_S, WATCHDOG_S)
        assert lines_of(server, "no sign of life") == []


GATED = """
import socket, sys, threading, time
from pingmon import tls, vitals
from pingmon.gate import Gate
from pathlib import Path

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

context = tls.Served(Path(sys.argv[1]), Path(sys.argv[2])).context
for listen in ("127.0.0.1", "127.0.0.5", "0.0.0.0", "::1", "::"):
    gate = Gate(lambda _peer: 0)
    server = concurrency.Server(app, listen, 0, context, gate)
    threading.Thread(target=server.run, daemon=True).start()
    front = vitals.Front(listen, server.port, gate)
    for _ in range(3):
        front.check()
    stranger = socket.create_connection((front._host, server.port), timeout=5)
    try:
        assert stranger.recv(1) == b""
    except ConnectionResetError:
        pass
    stranger.close()
    for _ in range(50):
        if gate.open or not gate.refused:
            time.sleep(0.1)
    print(listen, gate.refused, gate.open, gate.strangers, gate._expected)
"""


def gated(leaf: Leaf) -> str:
    return GATED.replace("sys.argv[1]", repr(str(leaf.certificate))).replace("sys.argv[2]", repr(str(leaf.key)))


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["eventlet", "gevent", "threading"])
def test_the_server_reaches_itself_wherever_it_listens(tmp_path: Path, mode: str) -> None:
    """Also where nobody else is let in any more, and it leaves nothing behind."""
    leaf = Authority(tmp_path).issue("192.0.2.1")

    assert run(gated(leaf), mode).splitlines() == [
        f"{listen} 1 0 0 set()" for listen in ("127.0.0.1", "127.0.0.5", "0.0.0.0", "::1", "::")
    ]


@pytest.mark.root
def test_without_ipv6_on_the_loopback_device_the_other_family_is_asked(tmp_path: Path) -> None:
    """Where the server listens on "::", which takes both."""
    from tests.agent.namespaces import Namespace

    leaf, inside = Authority(tmp_path).issue("192.0.2.1"), Namespace()
    try:
        inside.sysctl("net.ipv6.conf.lo.disable_ipv6", "1")
        code = gated(leaf).replace('("127.0.0.1", "127.0.0.5", "0.0.0.0", "::1", "::")', '("::",)')
        argv = ["ip", "netns", "exec", inside.name, sys.executable, "-c", PRELUDE + code]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    finally:
        inside.close()

    assert (done.stdout, done.returncode) == (":: 1 0 0 set()\n", 0), done.stderr


def test_a_front_door_that_is_closed_is_an_error(tmp_path: Path) -> None:
    """In words, with the address."""
    from pingmon.gate import Gate
    from pingmon.vitals import Front
    from tests.support.processes import free_port

    port = free_port()
    with pytest.raises(LifelessError, match=rf"127\.0\.0\.1 port {port}: .*refused"):
        Front("0.0.0.0", port, Gate()).check()


def test_the_committer_is_asked_to_do_something(committing: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes by while it runs; after its end nobody does."""
    committer(committing.ingest)()
    committing.ingest.stop()
    monkeypatch.setattr("pingmon.vitals.TURN_TIMEOUT_S", 0.3)

    def gone() -> bool:
        try:
            committer(committing.ingest)()
        except LifelessError as error:
            return str(error) == "it has not come by for 0 s"
        return False

    wait_for(gone, "the committer to be gone")


class Hand:
    """A watch whose checks and clock a test moves by hand."""

    def __init__(self, systemd: Systemd, watchdog_s: float) -> None:
        self.now, self.trouble = 1000.0, {"a": "", "b": ""}
        checks: dict[str, Callable[[], None]] = {name: self._check(name) for name in self.trouble}
        self.systemd = systemd
        self.watch = Watch(Notifier(systemd.address, watchdog_s), checks, lambda: "fine", lambda: self.now)

    def _check(self, name: str) -> Callable[[], None]:
        def check() -> None:
            if self.trouble[name]:
                raise OSError(self.trouble[name])

        return check

    def succeed(self, *names: str) -> None:
        for name in names:
            self.watch._seen[name] = self.now

    def pass_by(self, seconds: float) -> int:
        """How many signs of life are given while time passes."""
        before = self.systemd.heard.count(ALIVE)
        for _ in range(round(seconds)):
            self.now += 1
            self.watch.turn()
            while self.systemd.next(0.001):
                pass
        return self.systemd.heard.count(ALIVE) - before


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[Hand]:
    with listening(tmp_path / "notify") as systemd:
        yield Hand(systemd, 30.0)


def test_a_sign_of_life_needs_every_check(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Of the last ten seconds; not ready before, three in the time that systemd waits, one word about what is late."""
    hand.succeed("a")
    assert (hand.pass_by(5), "READY=1" in hand.systemd.heard) == (0, False)
    hand.succeed("a", "b")
    fed = 0
    for _ in range(30):
        hand.succeed("a", "b")
        fed += hand.pass_by(1)
    assert "READY=1" in hand.systemd.heard
    assert fed == 3

    hand.succeed("a", "b")
    hand.pass_by(FRESH_S)
    assert hand.pass_by(60) == 0
    hand.succeed("a")
    assert hand.pass_by(5) == 0
    assert "STATUS=no sign of life from a, b" in hand.systemd.heard
    assert caplog.text.count("no sign of life from b for ") == 1

    hand.succeed("a", "b")
    assert hand.pass_by(1) == 1


def test_a_check_that_fails_is_repeated_and_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In its own thread, by its own words."""
    with listening(tmp_path / "notify") as systemd:
        hand = Hand(systemd, 0.3)
        hand.now = 0.0
        hand.watch.start(lambda work, *args: threading.Thread(target=work, args=args, daemon=True).start())
        systemd.wait_for(ALIVE)
        hand.trouble["b"] = "the wire is cut"
        wait_for(lambda: hand.watch._reasons.get("b"), "the check to fail")
        hand.now = 5.0
        wait_for(lambda: "no sign of life from b for 5 s (the wire is cut)" in caplog.text, "a word about it")
        hand.watch.stop()


@pytest.mark.e2e
def test_a_watchdog_kill_leaves_a_trace(tmp_path: Path) -> None:
    """systemd ends a service that hangs by SIGABRT: its log then shows where every thread was."""
    with running_server(tmp_path / "server") as server:
        assert server.child is not None
        os.kill(server.child.process.pid, signal.SIGABRT)
        server.child.process.wait(10)
        log = (server.directory / "server.log").read_text()

    assert "Fatal Python error: Aborted" in log
