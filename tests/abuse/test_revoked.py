"""Cases 41 and 42: from the decision on an agent is out, whatever its state, and stays out; in every async mode."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.processes import running_server

from .victim import Victim, call, make_victim
from .wire import AGENT, BINARY, CONTINUED, TEXT, ended_after, flood, frame, frames_until_cut, hello, sample

pytestmark = pytest.mark.e2e
MODES = ("eventlet", "gevent", "threading")


@pytest.fixture(scope="module", params=MODES)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server in each mode, with an honest agent."""
    with running_server(tmp_path_factory.mktemp(request.param), mode=request.param) as server:
        made = make_victim(server)
        yield made
        assert server.visitor().is_up("/-/ready")
        assert "Traceback" not in made.log()


def agent_id(victim: Victim, hostname: str) -> str:
    return str(json.loads(victim.server.admin("agents", "show", hostname))["id"])


def decide(victim: Victim, hostname: str, verb: str) -> None:
    """As the Agents page does it."""
    path = f"/api/v1/agents/{agent_id(victim, hostname)}"
    if verb == "delete":
        call(victim.server, "DELETE", path)
    else:
        call(victim.server, "POST", f"{path}/{verb}")


def rounds_after(victim: Victim, hostname: str, at_ms: float) -> int:
    """Rounds of an agent that the server received after this time."""
    data = victim.server.directory / "data"
    with closing(sqlite3.connect(f"file:{data / 'samples.db'}?mode=ro", uri=True)) as database:
        database.execute("ATTACH ? AS directory", (f"file:{data / 'pingmon.db'}?mode=ro",))
        query = (
            "SELECT count(*) FROM rounds JOIN directory.agents ON no = agent_no WHERE hostname = ? AND received_ms > ?"
        )
        return int(database.execute(query, (hostname, at_ms)).fetchone()[0])


@pytest.mark.parametrize("state", ["approved", "pending", "hold"])
@pytest.mark.parametrize("verb", ["reject", "delete"])
def test_41_the_connection_ends_within_a_second_of_the_click(attacked: Victim, state: str, verb: str) -> None:
    """In each state, by the page's own call: told so, then FIN; the peer needs to read nothing for that."""
    name = f"{verb}-{state}"
    with attacked.agent(name, state) as client:
        click = time.monotonic()
        decide(attacked, name, verb)
        ended_after(client.line, 1.0)
        assert time.monotonic() - click < 3  # with what the command line and the page took
        said = client.event("handshake", 1)
    assert (said["state"], said.get("code")) in (("blacklisted", None), ("error", "E_STATE"))


def test_41_the_command_line_cuts_too(attacked: Victim) -> None:
    """Another program decides, and the server notices by itself within a second."""
    with attacked.agent("by-hand") as client:
        attacked.server.admin("agents", "reject", "by-hand")
        ended_after(client.line, 1.0)


def test_41_nothing_is_stored_after_the_decision(attacked: Victim) -> None:
    """With reports in flight all the time, none that came after the commit is kept, and the next login is refused."""
    secret = attacked.server.legacy_passphrase("reporting")
    with attacked.bystander(), attacked.client().opened() as client:
        assert client.ask("handshake", hello(secret, "reporting"))["state"] == "pending"
        attacked.server.admin("agents", "approve", "reporting")
        client.event("update_targets")
        for _ in range(5):
            assert client.ask("monitoring_data", sample(1))["ok"] is True
        for _ in range(5):
            client.raw_event(json.dumps(["monitoring_data", sample(2)]))
        attacked.server.admin("agents", "reject", "reporting")
        decided_ms = time.time() * 1000
        ended_after(client.line, 1.0)
        time.sleep(0.5)
    assert rounds_after(attacked, "reporting", 0) >= 5
    assert rounds_after(attacked, "reporting", decided_ms) == 0
    with attacked.client().opened() as client:
        assert client.ask("handshake", hello(secret, "reporting"))["state"] == "blacklisted"
        ended_after(client.line, 1.0)


def test_41_one_that_was_offline_or_is_about_to_shake_hands(attacked: Victim) -> None:
    """Decided while it is away, or between its connection and its handshake: the first answer is `blacklisted`."""
    secret = attacked.server.legacy_passphrase("away")
    with attacked.client().opened() as client:
        assert client.ask("handshake", hello(secret, "away"))["state"] == "pending"
    with attacked.client().opened() as client:
        attacked.server.admin("agents", "reject", "away")
        time.sleep(0.7)
        assert client.ask("handshake", hello(secret, "away"))["state"] == "blacklisted"
        ended_after(client.line, 1.0)


def test_05_14_15_the_other_modes_bound_messages_too(attacked: Victim) -> None:
    """One limit for a message in one frame, in fragments, or claimed; packets in plenty end the connection."""
    with attacked.client().opened() as client:
        client.line.sendall(frame(b"4" * 60_000, TEXT, False) + frame(b"x" * 9_000, CONTINUED, False))
        assert client.ending(3) in (1009, None)
    with attacked.client().opened() as client:
        assert frames_until_cut(client, b"x" * 65_000, BINARY, CONTINUED, final=False) < 100
    with attacked.agent("flooder") as client:
        assert flood(client, frame(f'42{AGENT},["make_coffee"]'.encode()) * 100, 10) < 5


@pytest.mark.slow
def test_42_a_restored_backup_resurrects_nobody(attacked: Victim, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Backup, blacklist, restore, start: the agent is still blacklisted, and the log says why."""
    server = attacked.server
    secret = server.legacy_passphrase("phoenix")
    with attacked.client().opened() as client:
        assert client.ask("handshake", hello(secret, "phoenix"))["state"] == "pending"
        server.admin("agents", "approve", "phoenix")
        client.event("update_targets")
    file = tmp_path_factory.mktemp("backup") / "before"
    server.admin("backup", str(file))
    server.admin("agents", "reject", "phoenix")
    server.stop()
    server.admin("restore", str(file))
    assert server.agent_state("phoenix") == "blacklisted"
    server.start()
    with attacked.client().opened() as client:
        assert client.ask("handshake", hello(secret, "phoenix"))["state"] == "blacklisted"
        ended_after(client.line, 1.0)
