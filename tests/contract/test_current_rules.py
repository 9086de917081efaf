"""The part of the contract that only current agents meet, with somebody else's client: sets, cursors, gaps, epochs."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake, Outcome, Report, Round
from tests.contract.foreign import ForeignAgent, foreign_agent
from tests.support.processes import Server

pytestmark = pytest.mark.e2e
EPOCH = "00112233445566aa"


def greeting(server: Server, hostname: str) -> dict[str, Any]:
    secret = server.admin("passphrases", "create", "--legacy").strip()
    message = Handshake(passphrase=secret, hostname=hostname, ip_address="192.0.2.5", version="1", epoch=EPOCH)
    return codec.encode_handshake(message)


@pytest.fixture
def agent(server: Server) -> Iterator[ForeignAgent]:
    """A foreign client that said nothing yet."""
    with foreign_agent(server) as agent:
        yield agent


def report(
    seqs: range, revision: int, *, width: int = 1, epoch: str = EPOCH, gap: tuple[int, int, str] | None = None
) -> dict[str, Any]:
    """Rounds `seqs`, one second apart; each RTT is seq milliseconds, every third one lost."""
    began = int(time.time() * 1000) - 60_000
    rounds = tuple(
        Round(
            epoch=epoch,
            seq=seq,
            started_ms=began + seq * 1000,
            revision=revision,
            samples=array("i", [seq * 1000 if seq % 3 else Outcome.TIMEOUT] * width),
        )
        for seq in seqs
    )
    return codec.encode_report(Report(epoch=epoch, rounds=rounds, gap=gap))


def test_reports_are_taken_once_in_order_and_whole(server: Server, agent: ForeignAgent) -> None:
    """Cursor, duplicates, holes, declared gaps, foreign epochs and sets: each answered as docs/wire.md says."""
    assert agent.ask("handshake", greeting(server, "current-1"))["state"] == "pending"
    server.admin("agents", "approve", "current-1")
    told = agent.event("handshake", 3.0)
    sent = agent.event("update_targets", 3.0)
    revision, width = sent["revision"], len(sent["targets"])
    assert (told["upto"], told["targets_rev"], sent["agent_id"]) == (0, revision, told["agent_id"])
    assert sent["interval_s"] == 1.0
    assert {"id", "name", "address"} == set(sent["targets"][0])

    def send(seqs: range, revision: int = revision, width: int = width, **more: Any) -> dict[str, Any]:
        return agent.ask("monitoring_data", report(seqs, revision, width=width, **more))

    assert send(range(1, 4)) == {"ok": True, "upto": 3, "dup": 0}
    assert send(range(2, 6)) == {"ok": True, "upto": 5, "dup": 2}
    hole = send(range(8, 10))
    assert (hole["ok"], hole["code"], hole["expected"]) == (False, "E_SEQ_GAP", 6)
    assert send(range(8, 10), gap=(6, 7, "expired")) == {"ok": True, "upto": 9, "dup": 0}
    assert send(range(10, 11), epoch="ffffffffffffffff")["code"] == "E_STATE"
    assert send(range(10, 11), revision=revision + 77)["code"] == "E_TARGET"
    assert send(range(10, 11), width=width + 1)["code"] == "E_BATCH"
    assert send(range(10, 11)) == {"ok": True, "upto": 10, "dup": 0}

    samples = server.session().json("/monitoring/current-1/here")["samples"]
    assert [row["rtt_ms"] for row in samples] == [1, 2, None, 4, 5, 8, None, 10]


def test_the_cursor_survives_the_connection(server: Server) -> None:
    """A new connection of the same epoch is told how far the server is; another epoch starts at nothing."""
    hello = greeting(server, "current-2")
    with foreign_agent(server) as agent:
        agent.ask("handshake", hello)
        server.admin("agents", "approve", "current-2")
        sent = agent.event("update_targets", 3.0)
        accepted = agent.ask("monitoring_data", report(range(1, 3), sent["revision"], width=len(sent["targets"])))
    with foreign_agent(server) as agent:
        again = agent.ask("handshake", hello)
    other = replace(codec.decode_handshake(hello), epoch="abcdabcdabcdabcd")
    with foreign_agent(server) as agent:
        anew = agent.ask("handshake", codec.encode_handshake(other))
    assert (accepted["upto"], again["upto"], anew["upto"]) == (2, 2, 0)


def test_a_refused_target_set_is_sent_again(server: Server, agent: ForeignAgent) -> None:
    """An agent that refuses a set, as one that has not heard of its approval yet, gets it again until it takes it."""
    agent.acknowledge_with({"ok": False, "code": "E_STATE", "message": "not approved yet"})
    agent.ask("handshake", greeting(server, "current-3"))
    server.admin("agents", "approve", "current-3")
    first = agent.event("update_targets", 3.0)
    agent.acknowledge_with({"ok": True, "revision": first["revision"], "refused": []})
    second = agent.event("update_targets", 5.0)
    agent.nothing_more("update_targets", 2.5)
    assert {**first, "issued_at": 0} == {**second, "issued_at": 0}


@pytest.mark.parametrize("nonsense", [None, {"ok": "true"}, {"ok": False, "message": {"a": ["b"]}}], ids=str)
def test_nonsense_for_an_acknowledgement_is_a_refusal(server: Server, agent: ForeignAgent, nonsense: object) -> None:
    """Whatever an agent acknowledges targets with, nothing but `ok: true` counts, and the server does not mind."""
    agent.acknowledge_with(nonsense)
    name = "current-4"
    agent.ask("handshake", greeting(server, name))
    server.admin("agents", "approve", name)
    agent.event("update_targets", 3.0)
    agent.acknowledge_with({"ok": True})
    agent.event("update_targets", 5.0)
    server.admin("agents", "delete", name)
    assert "Traceback" not in (server.directory / "server.log").read_text()
