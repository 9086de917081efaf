"""The whole agent as a process, against a real Socket.IO server over TLS: what a person would see."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pingmon_agent.wire import codec
from tests.support.stage import Stage

from .certificates import Authority
from .pretend import AGENT_ID, APPROVED, PASSPHRASE, AgentProcess, PretendServer, targets

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as made:
        yield made


def approved_agent(stage: Stage, *addresses: str) -> AgentProcess:
    """Start an agent that is approved at once and has targets."""
    stage.server.tell("set", handshake_answer=APPROVED)
    agent = stage.agent()
    stage.server.wait("handshake")
    stage.server.tell("targets", body=targets(*addresses))
    return agent


def test_from_pending_to_the_first_report(stage: Stage) -> None:
    """It waits while pending, goes on by itself at the push, and the first round arrives within two seconds."""
    agent = stage.agent()
    assert stage.server.wait("connect")["origin"] is None
    greeting = codec.decode_handshake(stage.server.wait("handshake")["data"])
    quiet = stage.server.nothing("report", 0.5)
    begun = time.monotonic()
    stage.server.tell("push", body=APPROVED)
    stage.server.tell("targets", body=targets("127.0.0.1", "::1", "localhost"))
    answer = stage.server.wait("targets_ack")["data"]
    report = codec.decode_report(stage.server.wait("report")["data"])

    assert (greeting.passphrase, greeting.hostname, greeting.ip_address) == (PASSPHRASE, "probe-1", "127.0.0.1")
    assert quiet
    assert answer == [{"ok": True, "revision": 1, "refused": []}]
    assert time.monotonic() - begun < 2
    assert report.rounds[0].seq == 1
    assert len(report.rounds[0].samples) == 3
    assert all(0 <= rtt < 100_000 for rtt in report.rounds[0].samples)
    assert "state approved" in agent.wait_log("state approved")


def test_a_new_set_is_used_from_the_next_round(stage: Stage) -> None:
    """update_targets with a higher revision, while running; a lower one is refused."""
    approved_agent(stage, "127.0.0.1")
    stage.server.wait("report")
    stage.server.tell("targets", body=targets("127.0.0.1", "127.0.0.2", revision=7))
    stage.server.wait("report", where=lambda seen: seen["data"]["rounds"][-1]["rev"] == 7)
    stage.server.tell("targets", body=targets("127.0.0.1", revision=6))
    refused = stage.server.wait("targets_ack", where=lambda seen: not seen["data"][0]["ok"])

    assert refused["data"][0]["message"] == "revision 6 is older than 7, which is in use"


def test_a_killed_server_gets_every_round_once(stage: Stage) -> None:
    """The server dies and comes back on its port: the agent measures on, returns by itself, and no seq is missing."""
    agent = approved_agent(stage, "127.0.0.1")
    committed = [r["seq"] for r in stage.server.wait("report")["data"]["rounds"]]
    stage.server.close()
    agent.wait_log("cannot connect: nothing listens on 127.0.0.1")
    time.sleep(0.5)
    stage.server = PretendServer(stage.leaf, stage.server.port)
    stage.server.tell("set", handshake_answer=APPROVED, upto=committed[-1])
    stage.server.wait("report", 20, where=lambda seen: seen["data"]["rounds"][0]["seq"] == committed[-1] + 1)
    stage.server.wait("report")

    assert agent.log.read_text().count("cannot connect") == 1, "one cause is said once"


def test_it_comes_back_after_the_server_hung_up(stage: Stage) -> None:
    """A disconnect by the server is an end like any other (the library alone would stay away for ever)."""
    approved_agent(stage, "127.0.0.1")
    stage.server.wait("report")
    stage.server.tell("kick")
    stage.server.wait("handshake")

    assert stage.server.wait("report")


def test_an_unacknowledged_report_is_sent_again(stage: Stage) -> None:
    """Refused as busy: the same rounds come again after the time the server asked for."""
    stage.server.tell("set", report_answer={"ok": False, "code": "E_SERVER", "message": "busy", "retry_after_s": 1})
    approved_agent(stage, "127.0.0.1")
    first = stage.server.wait("report")["data"]["rounds"][0]
    second = stage.server.wait("report", 10)["data"]["rounds"][0]

    assert first == second


def test_it_measures_on_while_on_hold_and_delivers_after_the_release(stage: Stage) -> None:
    """hold stops reports, not rounds."""
    approved_agent(stage, "127.0.0.1")
    stage.server.wait("report")
    stage.server.tell("push", body={"state": "hold", "agent_id": AGENT_ID, "reason": "operator", "retry_after_s": 60})
    time.sleep(0.3)
    while not stage.server.nothing("report", 0.5):
        pass
    stage.server.tell("push", body={**APPROVED, "upto": 1})
    report = stage.server.wait("report", where=lambda seen: seen["data"]["rounds"][0]["seq"] == 2)

    assert len(report["data"]["rounds"]) >= 3


def test_a_refused_agent_says_so_once_and_stays(stage: Stage) -> None:
    """A wrong passphrase: one line with the server's sentence, the process lives, and it does not hammer."""
    error = {"state": "error", "code": "E_PASSPHRASE", "message": "unknown passphrase; create one", "retry_after_s": 0}
    stage.server.tell("set", handshake_answer=error)
    agent = stage.agent()
    line = agent.wait_log("the server refuses this agent")

    assert "unknown passphrase; create one" in line
    assert "code=E_PASSPHRASE" in line
    assert stage.server.wait("handshake")
    assert stage.server.nothing("handshake", 2.0)
    assert agent.process.poll() is None


@pytest.mark.parametrize("state", ["pending", "hold", "blacklisted"])
def test_exit_when_unapproved_ends_with_3(stage: Stage, state: str) -> None:
    """The original behaviour, on demand."""
    stage.server.tell("set", handshake_answer={"state": state, "retry_after_s": 60})
    agent = stage.agent("--exit-when-unapproved")

    assert agent.process.wait(10) == 3
    assert "not approved and was told to end then" in agent.log.read_text()


def test_exit_when_unapproved_outlives_a_server_in_trouble(stage: Stage) -> None:
    """An error that will pass is no verdict about this agent: it tries again."""
    trouble = {"state": "error", "code": "E_SERVER", "message": "database down", "retry_after_s": 0}
    stage.server.tell("set", handshake_answer=trouble)
    agent = stage.agent("--exit-when-unapproved")
    stage.server.wait("handshake")
    stage.server.wait("handshake")

    assert agent.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_two_seconds_and_flushes(stage: Stage, number: signal.Signals) -> None:
    """Exit code 0, the last rounds delivered."""
    agent = approved_agent(stage, "127.0.0.1")
    stage.server.wait("report")
    code, took = agent.stop(number)

    assert (code, took < 2) == (0, True)
    assert "undelivered=0" in agent.wait_log("agent stopped")


def test_it_stops_within_two_seconds_with_a_deaf_server(stage: Stage) -> None:
    """No acknowledgement will ever come: stop all the same."""
    stage.server.tell("set", answer_reports=False)
    agent = approved_agent(stage, "127.0.0.1")
    stage.server.wait("report")
    code, took = agent.stop()

    assert (code, took < 2) == (0, True)


def test_something_else_behind_the_right_certificate_is_named(stage: Stage, tmp_path: Path) -> None:
    """TLS is fine but what answers is no pingmon server: the sentence says so, and no traceback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stage.leaf.certificate, stage.leaf.key)
    other = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    other.socket = context.wrap_socket(other.socket, server_side=True)
    thread = threading.Thread(target=other.serve_forever, args=(0.1,))
    thread.start()
    agent = AgentProcess(tmp_path, other.server_address[1], stage.authority.file)
    stage.agents.append(agent)
    line = agent.wait_log("cannot connect")
    agent.stop()
    other.shutdown()
    thread.join()
    other.server_close()

    assert "what answers there is no pingmon server, or it turns agents away" in line
    assert "Traceback" not in agent.log.read_text()


def test_a_foreign_certificate_is_refused_whatever_the_environment_says(stage: Stage, tmp_path: Path) -> None:
    """The server's CA only in variables and system paths, another in ca_file: no connection, the cause in the log."""
    other = Authority(tmp_path / "other")
    variables = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE")
    with pytest.MonkeyPatch.context() as patch:
        for name in variables:
            patch.setenv(name, str(stage.authority.file))
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        patch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        agent = AgentProcess(tmp_path, stage.server.port, other.file)
    stage.agents.append(agent)

    assert f"is not trusted by the CA in {other.file}" in agent.wait_log("cannot connect")
    assert stage.server.nothing("connect", 1.0)
    assert not (tmp_path / "keys").exists()
