"""Cases 3-6: who connects and does not go on. All wait at the same time, for each takes ten or fifteen seconds."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from .bystander import Seen
from .victim import Victim
from .wire import AGENT, Client, GoneError, hello, tcp, tcp_state

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SILENT, SILENT_PEERS = 2_000, 25
WATCH_S = 20.0


@dataclass
class Waited:
    """How long each kind of attacker was left alone, in seconds, and what others had of it."""

    seconds: dict[str, float] = field(default_factory=dict)
    silent_at_once: int = 0
    silent_ended: list[float] = field(default_factory=list)
    crowd_kept: int = 0
    joins: list[float] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    descriptors: tuple[int, int] = (0, 0)
    rss_mib: tuple[float, float] = (0.0, 0.0)

    def watch(self, name: str, line: socket.socket, began: float) -> None:
        """Note when the server ends this connection."""
        while time.monotonic() - began < WATCH_S and tcp_state(line) == "established":
            time.sleep(0.02)
        self.seconds[name] = time.monotonic() - began
        with suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)  # wakes who still talks on it


def drip(line: socket.socket, text: bytes, every_s: float) -> None:
    """A byte, a pause, a byte."""
    for byte in text:
        try:
            line.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(every_s)


def pongs(client: Client) -> None:
    """Answer pings and nothing else until the end."""
    with suppress(GoneError, OSError, ValueError):
        client.receive(lambda _text: False, WATCH_S)


def everybody(victim: Victim, waited: Waited) -> None:
    lines: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(name: str, line: socket.socket, talk: object = None, *arguments: object) -> None:
        lines.append(line)
        threads.append(threading.Thread(target=waited.watch, args=(name, line, time.monotonic())))
        if talk is not None:
            threads.append(threading.Thread(target=talk, args=arguments))  # type: ignore[arg-type]

    port = victim.server.port
    start("tls", tcp(port, "127.0.0.70"), None)
    slow, body = victim.client("127.0.0.71"), victim.client("127.0.0.72")
    request = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Header: and so on\r\n" * 50
    start("header", slow.line, drip, slow.line, request, 0.5)
    body.line.sendall(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
    start("body", body.line, drip, body.line, b"x" * 1000, 0.5)
    mute, joined, pending = victim.client("127.0.0.73"), victim.client("127.0.0.74"), victim.client("127.0.0.75")
    mute.opened("")
    start("no namespace", mute.line, pongs, mute)
    joined.opened()
    start("no handshake", joined.line, pongs, joined)
    assert pending.opened().ask("handshake", hello(victim.server.legacy_passphrase("w"), "waits"))["state"] == "pending"
    start("pending", pending.line, pongs, pending)
    left = victim.client("127.0.0.76").opened()
    assert left.ask("handshake", hello(victim.server.legacy_passphrase("l"), "leaves"))["state"] == "pending"
    left.say(f"41{AGENT},")
    start("left the namespace", left.line, pongs, left)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCH_S + 5)
    for line in lines:
        line.close()


def crowd(victim: Victim, waited: Waited) -> None:
    """2,000 that say nothing, from 25 addresses; and one address that brings 300 more."""
    began = time.monotonic()
    silent = [tcp(victim.server.port, f"127.0.1.{1 + i % SILENT_PEERS}") for i in range(SILENT)]
    one = [tcp(victim.server.port, "127.0.2.1") for _ in range(300)]
    time.sleep(1.0)
    waited.silent_at_once = sum(tcp_state(line) == "established" for line in silent)
    waited.crowd_kept = sum(tcp_state(line) == "established" for line in one)
    waited.rss_mib = (waited.rss_mib[0], victim.rss_mib())
    while time.monotonic() - began < WATCH_S and any(tcp_state(line) == "established" for line in silent):
        time.sleep(0.1)
    waited.silent_ended = [time.monotonic() - began]
    for line in silent + one:
        line.close()


def newcomers(victim: Victim, waited: Waited, secret: str, stop: threading.Event) -> None:
    """A new agent every second: how long until it is heard."""
    while not stop.wait(1.0):
        began = time.monotonic()
        with victim.client().opened() as client:
            assert client.ask("handshake", hello(secret, "newcomer"))["state"] == "pending"
        waited.joins.append(time.monotonic() - began)


@pytest.fixture(scope="module")
def waited(victim: Victim) -> Waited:
    """All of it at once, beside an honest agent and newcomers."""
    made, stop = Waited(), threading.Event()
    secret = victim.server.legacy_passphrase("newcomer")
    before, made.rss_mib = victim.descriptors(), (victim.rss_mib(), 0.0)
    with victim.bystander() as made.seen:
        parts = [threading.Thread(target=part, args=(victim, made)) for part in (everybody, crowd)]
        parts.append(threading.Thread(target=newcomers, args=(victim, made, secret, stop)))
        for part in parts:
            part.start()
        parts[0].join(60)
        parts[1].join(60)
        stop.set()
        parts[2].join(20)
    victim.back_to(before)
    return made


def test_03_two_thousand_silent_connections_disturb_nobody(waited: Waited) -> None:
    """All are held at once, and gone after 15 s; agents come in meanwhile, and one address never gets more than 200."""
    assert waited.silent_at_once == SILENT
    assert waited.silent_ended[0] < 19
    assert waited.crowd_kept <= 200
    assert 14 < waited.seconds["tls"] < 17
    assert len(waited.joins) >= 5
    assert max(waited.joins) < 2
    assert waited.rss_mib[1] - waited.rss_mib[0] < 200  # what 2,000 green threads and TLS states cost while they last


def test_04_a_request_in_drips_has_one_budget(waited: Waited) -> None:
    """A byte of the header, or of the body, now and then: the whole request has 15 s."""
    assert 14 < waited.seconds["header"] < 17
    assert 14 < waited.seconds["body"] < 17


def test_05_a_websocket_without_a_namespace_ends(waited: Waited) -> None:
    """After 10 s, though it answers pings; one that leaves its namespace again too."""
    assert 9 < waited.seconds["no namespace"] < 12
    assert 9 < waited.seconds["left the namespace"] < 12


def test_06_a_namespace_without_a_handshake_ends(waited: Waited) -> None:
    """After 10 s; an agent that waits for its approval stays."""
    assert 9 < waited.seconds["no handshake"] < 12
    assert waited.seconds["pending"] > 19


def test_03_04_the_bystander_is_not_delayed(waited: Waited) -> None:
    """Nothing lost or doubled (the fixture), and acknowledged as fast as on a quiet day."""
    assert waited.seen.p99_ms < 250, waited.seen.waits_ms
