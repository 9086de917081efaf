"""The original contract from end to end, spoken by a foreign client over TLS, in every async mode."""

from __future__ import annotations

import json
import socket
import ssl
import time

import pytest

from tests.contract.foreign import ForeignAgent, foreign_agent, hello
from tests.support.processes import Server

pytestmark = pytest.mark.e2e


def test_a_foreign_agent_enrols_measures_and_is_seen(any_server: Server) -> None:
    """handshake, pending, approve by CLI, targets, reports: /monitoring shows exactly what was reported."""
    server, name = any_server, "legacy-1"
    for words in (("home", "127.0.0.1"), ("home6", "::1"), ("other", "192.0.2.77")):
        server.admin("targets", "add", *words)
    passphrase = server.admin("passphrases", "create", "--legacy").strip()
    with foreign_agent(server) as agent:
        answer = agent.ask("handshake", hello(passphrase, name))
        assert answer["state"] == "pending"
        assert answer["retry_after_s"] > 0
        assert answer["registration_id"] == json.loads(server.admin("agents", "show", name))["id"]

        too_early = agent.ask("monitoring_data", {"target": "127.0.0.1", "rtt_ms": 1, "timestamp": time.time()})
        assert (too_early["ok"], too_early["code"]) == (False, "E_STATE")

        server.cli("agents", "approve", name)
        pushed = agent.event("handshake", 2.0)
        assert pushed["state"] == "approved"
        assert pushed["agent_id"] == answer["registration_id"]
        assert agent.event("update_targets", 2.0) == {"targets": ["127.0.0.1", "::1", "192.0.2.77"]}

        check_reports(server, agent, name, str(pushed["agent_id"]))


def check_reports(server: Server, agent: ForeignAgent, name: str, agent_id: str) -> None:
    now = int(time.time())
    assert server.session().json(f"/monitoring/{name}/127.0.0.1")["samples"] == []
    assert (
        agent.ask("monitoring_data", {"target": "127.0.0.1", "rtt_ms": 0.347, "timestamp": now - 30.75})["ok"] is True
    )
    several = [
        {"target": "127.0.0.1", "rtt_ms": None, "timestamp": now - 20},
        {"target": "::1", "rtt_ms": 12.5, "timestamp": now - 20},
        {"target": "home", "rtt_ms": 250, "timestamp": now - 10.001},
        {"target": "192.0.2.77", "rtt_ms": 0, "timestamp": now - 10.001},
    ]
    assert agent.ask("monitoring_data", several)["ok"] is True
    assert agent.ask("monitoring_data", several) == {"ok": True, "dup": 0, "rejected": []}

    shown = server.session().json(f"/monitoring/{name}/127.0.0.1")
    assert shown == {
        "agent": name,
        "target": "home",
        "interval_s": 1.0,
        "samples": [
            {"timestamp": now - 30.75, "rtt_ms": 0.347, "status": "ok"},
            {"timestamp": now - 20, "rtt_ms": None, "status": "timeout"},
            {"timestamp": now - 10.001, "rtt_ms": 250, "status": "ok"},
        ],
    }
    six, other = (server.session().json(f"/monitoring/{agent_id}/{target}") for target in ("home6", "192.0.2.77"))
    assert six["samples"] == [{"timestamp": now - 20, "rtt_ms": 12.5, "status": "ok"}]
    assert other["samples"] == [{"timestamp": now - 10.001, "rtt_ms": 0, "status": "ok"}]


def test_without_acknowledgement_the_answer_is_an_event(any_server: Server) -> None:
    """A client that asks for no acknowledgement gets the event `handshake` with the same body, and nothing twice."""
    secret = server_secret(any_server)
    with foreign_agent(any_server) as agent:
        agent.say("handshake", hello(secret, "no-ack"))
        as_event = agent.event("handshake")
        as_answer = agent.ask("handshake", hello(secret, "no-ack"))
        agent.nothing_more("handshake", 0.3)
    assert as_event["state"] == "pending"
    assert {**as_event, "time": 0} == {**as_answer, "time": 0}


def test_a_change_of_targets_reaches_every_approved_agent_at_once(any_server: Server) -> None:
    """`targets add` and `targets remove` reach two approved agents within two seconds, and no pending one."""
    server = any_server
    secret = server_secret(server)
    before = [line.split(",")[1] for line in server.admin("targets", "export").splitlines()]
    with foreign_agent(server) as one, foreign_agent(server) as two, foreign_agent(server) as waiting:
        for agent, name in ((one, "push-1"), (two, "push-2"), (waiting, "push-3")):
            assert agent.ask("handshake", hello(secret, name))["state"] == "pending"
        server.admin("agents", "approve", "push-1", "push-2")
        for agent in (one, two):
            assert agent.event("update_targets", 2.0) == {"targets": before}
        for words, expected in (
            (("add", "late", "203.0.113.9"), [*before, "203.0.113.9"]),
            (("remove", "late"), before),
        ):
            server.cli("targets", *words)
            changed = time.monotonic()
            for agent in (one, two):
                assert agent.event("update_targets", 2.0) == {"targets": expected}
            print(
                f"{server.mode}: targets {words[0]} pushed {time.monotonic() - changed:.2f} s after the command ended"
            )
        waiting.nothing_more("update_targets", 0.2)


def server_secret(server: Server) -> str:
    return server.admin("passphrases", "create", "--legacy", "--uses", "5").strip()


def test_tls_1_2_is_refused_on_the_wire(any_server: Server) -> None:
    """A client that speaks TLS 1.2 at most is turned away in the handshake; one with 1.3 is served after it."""
    context = ssl.create_default_context(cafile=str(any_server.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", any_server.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert any_server.visitor().is_up("/-/healthy")
