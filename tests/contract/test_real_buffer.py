"""A real agent with its rounds on file, killed and damaged, and a real server: what is on file arrives, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pingmon.store.rounds import SqliteRounds
from pingmon_agent import segments
from pingmon_agent.segments import Kind
from tests.support.processes import Agent, running_server, wait_for, write_agent

pytestmark = pytest.mark.e2e
Rows = dict[tuple[str, int], tuple[int, list[int]]]  # (epoch, seq) -> start, samples


def on_file(ring: Path) -> Rows:
    """All rounds in the agent's directory."""
    blocks = [block for path in ring.glob("*.ring") for block in segments.read(path.read_bytes()).blocks]
    return {(b.epoch, b.seq): (b.time_ms, b.samples.tolist()) for b in blocks if b.kind is Kind.ROUND}


def stored(database: Path) -> Rows:
    """All rounds of agents in the server's database."""
    store = SqliteRounds(database)
    found = list(store.since(0))
    store.close()
    assert len({(r.epoch, r.seq) for r in found}) == len(found), "a round is there twice"
    return {(r.epoch, r.seq): (r.started_ms, r.samples.tolist()) for r in found}


@pytest.mark.timeout(120)
def test_rounds_on_file_arrive_once_whatever_becomes_of_the_agent(tmp_path: Path) -> None:
    """Killed beside a server, killed while it is away, then with a torn file: two epochs, and all rounds of both."""
    ring = tmp_path / "ring"
    with running_server(tmp_path / "server", interval_s=1) as server:
        database = server.directory / "data" / "samples.db"
        server.admin("targets", "add", "here", "127.0.0.1")
        agent = Agent(server, tmp_path / "agent", "probe-1", ("env", f"PINGMON_AGENT_AGENT_BUFFER_DIR={ring}"))
        url = server.url.replace("https://", "wss://")
        write_agent(agent, url=url, ip_address="127.0.0.1", passphrase=server.passphrase("probe-1"), timeout_ms=200)

        def grows(read: str) -> None:
            source = (lambda: on_file(ring)) if read == "file" else (lambda: stored(database))
            before = len(source())
            wait_for(lambda: len(source()) >= before + 3, f"three more rounds on {read}")

        def kill() -> None:
            assert agent.child is not None
            agent.child.process.kill()
            agent.child.process.wait()

        try:
            agent.start()
            agent.approve()
            grows("server")
            kill()
            agent.start()
            grows("server")
            assert len({epoch for epoch, _ in stored(database)}) == 1
            server.stop()
            grows("file")
            kill()
            newest = max(ring.glob("*.ring"))
            newest.write_bytes(newest.read_bytes() + b"torn")
            server.start()
            agent.start()
            wait_for(lambda: len({epoch for epoch, _ in stored(database)}) == 2, "rounds of the new epoch")
            grows("server")
            assert agent.stop() == 0
            assert stored(database) == on_file(ring)
        finally:
            if agent.child is not None:
                agent.stop()
