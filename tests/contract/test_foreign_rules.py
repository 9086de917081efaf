"""What the contract refuses, holds and survives, said by a foreign client to one running server."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from pingmon import config as settings
from pingmon.services.bundle import open_services
from tests.contract.foreign import BYTES, ForeignAgent, foreign_agent, hello
from tests.support.processes import Server

pytestmark = pytest.mark.e2e


class YesterdaysClock:
    """A clock of two days ago: what was made by it with a lifetime of a day has expired today."""

    def wall_ms(self) -> int:
        return int(time.time() * 1000) - 2 * 86_400_000

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def secret(server: Server) -> str:
    """A passphrase for plain enrolment, good for three agents."""
    return server.admin("passphrases", "create", "--legacy", "--uses", "3").strip()


def sample(rtt_ms: float | None, age_s: float = 0, target: str = "here") -> dict[str, Any]:
    return {"target": target, "rtt_ms": rtt_ms, "timestamp": round(time.time() - age_s, 3)}


def approved(server: Server, agent: ForeignAgent, payload: dict[str, Any]) -> str:
    """Shake hands, be approved, have targets; returns the agent's id."""
    assert agent.ask("handshake", payload)["state"] == "pending"
    server.admin("agents", "approve", payload["hostname"])
    told = agent.event("handshake", 3.0)
    agent.event("update_targets", 3.0)
    return str(told["agent_id"])


def stored_rounds(server: Server) -> int:
    with sqlite3.connect(f"file:{server.directory / 'data' / 'samples.db'}?mode=ro", uri=True) as database:
        count = int(database.execute("SELECT count(*) FROM rounds").fetchone()[0])
    database.close()
    return count


def test_rejecting_blacklists_now_and_later(server: Server, secret: str) -> None:
    """Rejecting pushes `blacklisted` and hangs up; each later handshake gets the same word and is hung up on too."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "reject-me"))
        server.admin("agents", "reject", "reject-me")
        told = agent.event("handshake", 3.0)
        agent.happening("disconnect")
    assert (told["state"], told["reason"]) == ("blacklisted", "operator")
    with foreign_agent(server) as agent:
        answer = agent.ask("handshake", hello(secret, "reject-me"))
        agent.happening("disconnect")
    assert answer["state"] == "blacklisted"
    assert answer["retry_after_s"] >= 600


def test_another_address_means_hold_until_released(server: Server, secret: str) -> None:
    """An approved agent from another IP is held and nothing of it is stored; released, it goes on where it is now."""
    with foreign_agent(server) as agent:
        agent_id = approved(server, agent, hello(secret, "mover", "192.0.2.1"))
        assert agent.ask("monitoring_data", sample(1.5))["ok"] is True
    with foreign_agent(server) as agent:
        held = agent.ask("handshake", hello(secret, "mover", "192.0.2.2"))
        assert (held["state"], held["reason"], held["agent_id"]) == ("hold", "ip_changed", agent_id)
        before = stored_rounds(server)
        refused = agent.ask("monitoring_data", sample(2.5))
        assert (refused["ok"], refused["code"]) == (False, "E_STATE")
        assert stored_rounds(server) == before
        agent.nothing_more("update_targets", 0.2)

        server.admin("agents", "release", "mover")
        assert agent.event("handshake", 3.0)["state"] == "approved"
        agent.event("update_targets", 3.0)
        assert agent.ask("monitoring_data", sample(3.5))["ok"] is True
    shown = server.session().json("/monitoring/mover/here")["samples"]
    assert [row["rtt_ms"] for row in shown] == [1.5, 3.5]
    with foreign_agent(server) as agent:
        assert agent.ask("handshake", hello(secret, "mover", "192.0.2.2"))["state"] == "approved"


def test_an_operators_hold_is_pushed_and_released(server: Server, secret: str) -> None:
    """`agents hold` and `agents release` reach the agent as they happen, with the operator as the reason."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "held"))
        server.admin("agents", "hold", "held")
        told = agent.event("handshake", 3.0)
        assert (told["state"], told["reason"]) == ("hold", "operator")
        assert agent.ask("monitoring_data", sample(1))["code"] == "E_STATE"
        server.admin("agents", "release", "held")
        assert agent.event("handshake", 3.0)["state"] == "approved"
        assert agent.ask("monitoring_data", sample(1))["ok"] is True


def sealed(server: Server) -> str:
    return server.admin("passphrases", "create").strip()


def with_another_secret(server: Server) -> str:
    text = server.admin("passphrases", "create", "--legacy").strip()
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def used_up(server: Server) -> str:
    text = server.admin("passphrases", "create", "--legacy").strip()
    with foreign_agent(server) as agent:
        assert agent.ask("handshake", hello(text, "first-of-one"))["state"] == "pending"
    return text


def expired(server: Server) -> str:
    services = open_services(settings.load(server.config), YesterdaysClock())
    try:
        return services.enrolment.create_passphrase("old", legacy=True, max_uses=1, ttl_s=86_400, actor="test")[1]
    finally:
        services.close()


def revoked(server: Server) -> str:
    text = server.admin("passphrases", "create", "--legacy").strip()
    server.admin("passphrases", "revoke", text.split("-")[1])
    return text


@pytest.mark.parametrize(
    ("make", "code", "sentence"),
    [
        (
            sealed,
            "E_LEGACY_DISABLED",
            "this server takes no plain passphrase like this one; make one with `pingmon passphrases create --legacy` "
            "or on the Passphrases page and put it into the agent's passphrase file; it works for 30 days at most",
        ),
        (
            lambda _server: "correct horse battery staple",
            "E_LEGACY_DISABLED",
            "this server takes no plain passphrase like this one; make one with `pingmon passphrases create --legacy` "
            "or on the Passphrases page and put it into the agent's passphrase file; it works for 30 days at most",
        ),
        (
            with_another_secret,
            "E_PASSPHRASE",
            "the passphrase is wrong; copy it again or make a new one on the Passphrases page",
        ),
        (
            used_up,
            "E_PASSPHRASE_EXHAUSTED",
            "all 1 uses of this passphrase are spent; make one with more uses",
        ),
        (
            expired,
            "E_PASSPHRASE_EXPIRED",
            "this passphrase has expired; give the agent a new one",
        ),
        (
            revoked,
            "E_PASSPHRASE_REVOKED",
            "this passphrase was revoked; give the agent a new one",
        ),
    ],
    ids=["sealed", "home-made", "wrong-secret", "used-up", "expired", "revoked"],
)
def test_each_unfit_passphrase_has_its_code(
    server: Server, make: Callable[[Server], str], code: str, sentence: str
) -> None:
    """A passphrase that opens nothing is refused with the code and the sentence for exactly that reason."""
    unfit = make(server)
    with foreign_agent(server) as agent:
        answer = agent.ask("handshake", hello(unfit, "stranger"))
        data = agent.ask("monitoring_data", sample(1))
    assert (answer["state"], answer["code"], answer["message"]) == ("error", code, sentence)
    assert data["code"] == "E_STATE"
    assert server.agent_state("stranger") is None


def test_a_passphrase_made_a_moment_ago_is_good(server: Server) -> None:
    """A passphrase from the command line works at once, not only after the server's next look at the directory."""
    with foreign_agent(server) as agent:
        for number in range(3):
            secret = server.admin("passphrases", "create", "--legacy").strip()
            assert agent.ask("handshake", hello(secret, f"moment-{number}"))["state"] == "pending"


def test_revoking_shuts_out_an_agent_that_was_let_in(server: Server) -> None:
    """Once its passphrase is revoked, an approved agent's next handshake is refused."""
    secret = server.admin("passphrases", "create", "--legacy").strip()
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "let-in"))
    server.admin("passphrases", "revoke", secret.split("-")[1])
    time.sleep(1.2)  # the server reads the directory once a second
    with foreign_agent(server) as agent:
        assert agent.ask("handshake", hello(secret, "let-in"))["code"] == "E_PASSPHRASE_REVOKED"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("words", "E_MALFORMED"),
        (None, "E_MALFORMED"),
        ({"hostname": "a"}, "E_MALFORMED"),
        (hello("x", "a") | {"version": 3}, "E_MALFORMED"),
        (hello("x", "under the stairs"), "E_HOSTNAME"),
        (hello("x", "a", "somewhere"), "E_IP"),
        (hello("x", "a", "fe80::1%eth0"), "E_IP"),
        (hello("x", "a", version="v" * 33), "E_VERSION"),
        (hello("", "a"), "E_PASSPHRASE"),
    ],
)
def test_a_broken_handshake_is_told_what_is_wrong(server: Server, payload: object, code: str) -> None:
    """A handshake the contract forbids is answered with its code, and the connection stays usable."""
    with foreign_agent(server) as agent:
        answer = agent.ask("handshake", payload)
        again = agent.ask("handshake", hello("x", "a"))
    assert (answer["state"], answer["code"]) == ("error", code)
    assert answer["message"]
    assert again["code"] == "E_LEGACY_DISABLED"


def test_each_broken_report_has_its_code_and_stores_nothing(server: Server, secret: str) -> None:
    """Reports that are no reports are refused with a code; one bad sample spoils its message."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "sloppy"))
        before = stored_rounds(server)
        for payload, code in (
            ("words", "E_MALFORMED"),
            ([], "E_BATCH"),
            ({"target": "here"}, "E_TIME"),
            ([sample(1), sample(-1)], "E_MALFORMED"),
            (sample(1) | {"rtt_ms": "1"}, "E_MALFORMED"),
            (sample(1) | {"rtt_ms": True}, "E_MALFORMED"),
            (sample(1) | {"timestamp": "now"}, "E_TIME"),
        ):
            answer = agent.ask("monitoring_data", payload)
            assert (answer["ok"], answer["code"]) == (False, code), payload
        unknown = agent.ask("monitoring_data", sample(1, target="198.51.100.1"))
        assert unknown == {"ok": True, "dup": 0, "rejected": [["198.51.100.1", "E_TARGET"]]}
        assert stored_rounds(server) == before


def test_an_unknown_event_is_answered(server: Server) -> None:
    """An event the contract does not have is answered E_UNKNOWN_EVENT with the events there are."""
    with foreign_agent(server) as agent:
        answer = agent.ask("make_coffee", {"sugar": 2})
    assert answer == {
        "ok": False,
        "code": "E_UNKNOWN_EVENT",
        "message": "'make_coffee' is no event of this contract; there are handshake and monitoring_data",
    }


def test_reserved_and_nameless_events_are_harmless(server: Server, secret: str) -> None:
    """Events named like the library's own, or not named at all, change nothing: the agent goes on as who it was."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "odd"))
        for data in (
            ["connect"],
            ["connect", {"REMOTE_ADDR": "203.0.113.5"}],
            ["disconnect"],
            ["disconnect", "bye"],
            ["*"],
            ["unknown-event"],
            [],
            [7],
            [None, {}],
        ):
            agent.send_raw(*data)
            assert agent.ask("monitoring_data", sample(1))["ok"] is True, data
    assert faults(server) == 0


def test_binary_events_are_no_way_around(server: Server, secret: str) -> None:
    """An event that carries bytes is checked like any other: answered as malformed, never taken for the library's."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "bytes"))
        for event in ("connect", "disconnect", "make_coffee"):
            agent.send_raw(event, BYTES)
            assert agent.ask("monitoring_data", sample(1))["ok"] is True, event
        assert agent.ask("handshake", BYTES)["code"] == "E_MALFORMED"
        assert agent.ask("monitoring_data", BYTES)["code"] == "E_MALFORMED"
        assert agent.ask("monitoring_data", [sample(1), BYTES])["code"] == "E_MALFORMED"
        assert agent.ask("monitoring_data", sample(1))["ok"] is True
    assert faults(server) == 0


def test_unreadable_packets_change_nothing_and_leave_no_traceback(server: Server, secret: str) -> None:
    """Packets that are no Socket.IO at all are dropped without a traceback in the log; the connection goes on."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "garbler"))
        for text in ("2/agent,[", "9", "4/agent,{}", "", "x", "2/agent," + "[" * 5000, "51-/agent,7", "3/agent,99[1]"):
            agent.send_text(text)
        agent.send_text("5-/agent,[1]")
        assert agent.ask("monitoring_data", sample(1))["ok"] is True
    assert "Traceback" not in (server.directory / "server.log").read_text()


def faults(server: Server) -> float:
    page = server.session().request("/metrics")[1]
    line = next(line for line in page.splitlines() if line.startswith("pingmon_server_handler_faults_total "))
    return float(line.split()[1])


def test_one_connection_may_become_another_agent(server: Server, secret: str) -> None:
    """A second handshake as somebody else ends the first agent's presence; the second one gets targets of its own."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "twin-1"))
        approved(server, agent, hello(secret, "twin-2"))
        present = {row["hostname"] for row in agents(server) if row["connected"]}
        assert "twin-2" in present
        assert "twin-1" not in present


def test_a_newer_connection_replaces_the_older(server: Server, secret: str) -> None:
    """An agent that connects again is served there, the older connection is closed, and the agent stays connected."""
    with foreign_agent(server) as old, foreign_agent(server) as new:
        approved(server, old, hello(secret, "double"))
        assert new.ask("handshake", hello(secret, "double"))["state"] == "approved"
        new.event("update_targets")
        old.happening("disconnect")
        assert new.ask("monitoring_data", sample(1))["ok"] is True
        assert [row["connected"] for row in agents(server) if row["hostname"] == "double"] == [True]


def agents(server: Server) -> list[dict[str, Any]]:
    return list(server.session().json("/api/v1/agents")["agents"])


def test_a_message_too_large_ends_only_its_connection(server: Server, secret: str) -> None:
    """A message above 64 KiB closes the connection that sent it; the same agent may come back at once."""
    with foreign_agent(server) as agent:
        approved(server, agent, hello(secret, "shouter"))
        agent.say("monitoring_data", "x" * 70_000)
        agent.happening("disconnect")
    with foreign_agent(server) as agent:
        assert agent.ask("handshake", hello(secret, "shouter"))["state"] == "approved"


def test_only_the_namespaces_of_the_contract_can_be_joined(server: Server) -> None:
    """A namespace that does not exist is refused."""
    agent = ForeignAgent(f"{server.url}/elsewhere", server.ca_file)
    try:
        agent.happening("connect_error")
    finally:
        agent.close()


def test_polling_is_refused(server: Server) -> None:
    """The HTTP polling transport is refused with 400: there is only the websocket."""
    status, _ = server.visitor().request("/socket.io/?EIO=4&transport=polling")
    assert status == 400
    agent = ForeignAgent(f"{server.url}/agent", server.ca_file, "polling")
    try:
        assert agent.happening("connect_error")["detail"] == "400"
    finally:
        agent.close()


def test_plain_text_on_the_tls_port_gets_nothing(server: Server) -> None:
    """ws:// and http:// on the TLS port get no answer in clear, and the server goes on serving."""
    agent = ForeignAgent(f"http://127.0.0.1:{server.port}/agent", server.ca_file)
    try:
        agent.happening("connect_error")
    finally:
        agent.close()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer
    assert server.visitor().is_up("/-/healthy")


def test_show_and_grid_name_the_foreign_agent(server: Server, secret: str) -> None:
    """`agents show` calls it legacy, with its own version, and the picture has a row for it."""
    with foreign_agent(server) as agent:
        agent_id = approved(server, agent, hello(secret, "seen"))
        agent.ask("monitoring_data", sample(4.25))
        picture = server.session().json("/api/v1/grid")
    shown = json.loads(server.admin("agents", "show", "seen"))
    row = [a["id"] for a in picture["agents"]].index(agent_id)
    column = [t["name"] for t in picture["targets"]].index("here")
    assert (shown["legacy"], shown["version"], shown["id"]) == (True, "0.9-foreign", agent_id)
    assert (picture["rtt_ms"][row][column], picture["state"][row][column]) == (4.25, "ok")
