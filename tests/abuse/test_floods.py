"""Cases 18-20, and what kills an unguarded server: too fast, too deaf, too often, too many files, gone too early."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.support.processes import Server, free_port, make_pki, wait_for, write_server

from .victim import Victim, make_victim, put
from .wire import AGENT, ATTACKER, GoneError, ended_after, flood, frame, hello, sample, tcp, tcp_state

pytestmark = pytest.mark.e2e


def test_18_valid_events_in_plenty_are_refused_and_then_cut(victim: Victim) -> None:
    """Ten thousand a second from an approved agent: E_RATE after the burst, the end after ten times as much."""
    before = victim.rss_mib()
    with victim.bystander() as seen:
        with victim.agent("chatty") as client:
            times = [time.time_ns() // 1_000_000 + i for i in range(70)]
            numbers = [client.raw_event(json.dumps(["monitoring_data", sample(1, at)])) for at in times]
            answers = [client.answer(number) for number in numbers]
            heard = [answer for answer in answers if answer.get("ok")]
            assert 20 <= len(heard) < 65  # five a second come on top, and each one waits for its commit
            assert {a["code"] for a in answers if not a.get("ok")} == {"E_RATE"}
            event = json.dumps(["monitoring_data", sample(1)])
            assert flood(client, frame(f"42{AGENT},{event}".encode()) * 500, 10) < 5
        assert "ten times too many messages" in victim.log()  # and not only what bounds packets of any kind
        with victim.agent("nonsense") as client:
            assert flood(client, frame(f'42{AGENT},["make_coffee"]'.encode()) * 500, 10) < 5
        with victim.agent("pinger") as client:
            assert flood(client, frame(b"", 9) * 500, 10) < 5
        with victim.agent("ponger") as client:
            assert flood(client, frame(b"3") * 500, 10) < 5
        time.sleep(1)
    assert seen.p99_ms < 250, seen.waits_ms
    assert victim.rss_mib() - before < 20


def test_19_a_client_that_never_reads_is_cut(victim: Victim) -> None:
    """What waits for it stops at a bound, then the end; others do not notice, and revoking a deaf one takes no time."""
    admin = victim.server.admin
    before = victim.rss_mib()
    targets = [{"name": f"t{i}", "address": f"127.3.{i // 250}.{i % 250 + 1}"} for i in range(500)]
    deaf, deafer = (victim.agent(name, small_window=True) for name in ("deaf", "deafer"))
    with deaf, deafer, victim.bystander() as seen:
        began = time.monotonic()
        for number in range(200):
            put(victim.server, [{"name": "here", "address": "127.0.0.1"}, *targets[number:]])
            if tcp_state(deaf.line) != "established":
                break
            if number == 12:  # the kernel's buffers are full by now
                click = time.monotonic()
                admin("agents", "reject", "deafer")
                ended_after(deafer.line, 1.5)
                assert time.monotonic() - click < 2.5  # the command itself takes its time on a busy machine
        assert tcp_state(deaf.line) != "established", f"not cut in {time.monotonic() - began:.0f} s"
        assert time.monotonic() - began < 60
        put(victim.server, [{"name": "here", "address": "127.0.0.1"}])
    assert "connection cut from=127.0.0.1: does not read" in victim.log()
    # The load that fills the line is an admin who rewrites 500 targets of every agent twenty times a second.
    assert seen.p99_ms < 600, seen.waits_ms
    assert victim.rss_mib() - before < 30


@pytest.mark.slow
def test_20_a_storm_from_one_address_is_shut_out(victim: Victim) -> None:
    """Connect, fail, leave, as fast as six threads can: E_RATE, then shut out below TLS; nobody else notices."""
    descriptors, before = victim.descriptors(), victim.rss_mib()
    codes: dict[str, int] = {}
    until = time.monotonic() + 10

    def storm() -> None:
        while time.monotonic() < until:
            code = attempt(victim)
            codes[code] = codes.get(code, 0) + 1

    with victim.bystander() as seen:
        threads = [threading.Thread(target=storm) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print("STORM", codes)
    assert codes["E_LEGACY_DISABLED"] <= 12
    assert codes["E_RATE"] >= 5
    assert codes["shut out"] > 200
    assert seen.p99_ms < 250, seen.waits_ms
    victim.back_to(descriptors)
    assert victim.rss_mib() - before < 20
    assert victim.log().count("handshake refused from=127.0.0.66") <= 12


def attempt(victim: Victim) -> str:
    """One failed handshake; how far it came."""
    try:
        with victim.client(ATTACKER) as client:
            status = client.upgrade()
            if status != 101:
                return str(status)
            client.say(f"40{AGENT},")
            client.receive(lambda text: text.startswith(f"40{AGENT},"))
            return str(client.ask("handshake", hello("wrong", "stormy"))["code"])
    except (OSError, GoneError):
        return "shut out"


def test_20_few_sockets_wait_for_a_handshake_from_one_address(victim: Victim) -> None:
    """Five; the sixth is told to come back, and one that shakes hands makes room."""
    here = "127.0.0.67"
    waiting = [victim.client(here).opened() for _ in range(5)]
    with victim.client(here) as sixth:
        assert sixth.upgrade() == 429
    assert "Retry-After: 10" in sixth.answer_headers
    secret = victim.server.legacy_passphrase("roomy")
    assert waiting[0].ask("handshake", hello(secret, "roomy"))["state"] == "pending"
    with victim.client(here) as again:
        assert again.upgrade() == 101
    for client in waiting:
        client.close()


def test_a_reset_before_the_accept_does_not_end_the_server(victim: Victim) -> None:
    """Peers that send and reset before they are accepted: in stock eventlet accept() raises, and the server ends."""
    os.kill(victim.pid, signal.SIGSTOP)  # so that they wait in the kernel, as they do while the server is busy
    try:
        for _ in range(20):
            line = tcp(victim.server.port, "127.0.0.68")
            line.send(b"x")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    wait_for(lambda: victim.server.visitor().is_up("/-/healthy"), "the server to go on", deadline_s=5)


def test_no_descriptor_left_ends_nobody(victim: Victim) -> None:
    """accept() fails with EMFILE: open connections stay, the log says why, and once there is room it goes on."""
    before = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
    with victim.bystander():
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (victim.descriptors() + 4, before[1]))
        try:
            crowd = [tcp(victim.server.port) for _ in range(20)]
            wait_for(lambda: "no connection can be accepted" in victim.log(), "the log to say so")
            time.sleep(1)
        finally:
            resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, before)
        for line in crowd:
            line.close()
        wait_for(lambda: victim.server.visitor().is_up("/-/ready"), "the server to take connections again")


def test_too_few_descriptors_end_nobody(tmp_path: Path) -> None:
    """400 connections against a limit of 300 files: those that are open stay, the log says why, and it passes."""
    server = Server(tmp_path, free_port(), prefix=("prlimit", "--nofile=300:300"))
    make_pki(tmp_path)
    write_server(server, interval_s=1, mesh=False)
    server.admin("db", "upgrade")
    try:
        server.start()
        victim = make_victim(server)
        with victim.bystander():
            crowd = [tcp(server.port) for _ in range(400)]
            time.sleep(2)
            kept = sum(tcp_state(line) == "established" for line in crowd)
            for line in crowd:
                line.close()
        assert 50 < kept < 300 - 128
        assert "raise the limit of open files (LimitNOFILE=)" in victim.log()
        wait_for(lambda: server.visitor().is_up("/-/ready"), "the server to take connections again")
        assert "Traceback" not in victim.log()
    finally:
        if server.child is not None:
            server.stop()
