"""Real agents that may not measure yet, or not any more: they wait, say why, and go on by themselves."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import Agent, Server, clean_environment, make_pki, running_agent, running_server, wait_for

pytestmark = pytest.mark.e2e


def log_of(agent: Agent) -> str:
    assert agent.child is not None
    assert agent.child.running, agent.child.last_lines(20)
    return agent.child.log.read_text()


def wait_until_said(agent: Agent, sentence: str) -> None:
    wait_for(lambda: sentence in log_of(agent), f"the agent to say: {sentence}", deadline_s=15)


def times(server: Server, hostname: str) -> list[float]:
    samples = server.session().json(f"/monitoring/{hostname}/here")["samples"]
    return [row["timestamp"] for row in samples]


def test_an_agent_waits_and_goes_on_once_approved(server: Server, tmp_path: Path) -> None:
    """Pending, it measures nothing and stays; approved, its first round is there within five seconds."""
    with running_agent(server, tmp_path, "patient") as agent:
        wait_until_said(agent, "state pending")
        time.sleep(2)
        assert log_of(agent).count("state pending") == 1
        assert times(server, "patient") == []
        server.admin("agents", "approve", "patient")
        began = time.monotonic()
        wait_for(lambda: times(server, "patient"), "the first round after approval", deadline_s=5)
        print(f"\napproval to first committed round: {time.monotonic() - began:.2f} s")


def test_a_hold_delays_rounds_and_loses_none(server: Server, tmp_path: Path) -> None:
    """While on hold an agent keeps measuring and delivers nothing; once released, the rounds of the hold arrive too."""
    with running_agent(server, tmp_path, "on-hold") as agent:
        agent.approve()
        wait_for(lambda: times(server, "on-hold"), "a first round")
        server.admin("agents", "hold", "on-hold")
        wait_until_said(agent, "state hold")
        held_at = time.time()
        time.sleep(3)
        assert max(times(server, "on-hold")) < held_at
        server.admin("agents", "release", "on-hold")
        released = time.time()
        wait_for(lambda: max(times(server, "on-hold")) > released, "rounds after the hold")
        whole = times(server, "on-hold")
    assert len(whole) == len(set(whole))
    assert max(b - a for a, b in itertools.pairwise(whole)) < 1.5


def test_exit_when_unapproved_ends_with_its_own_code(server: Server, tmp_path: Path) -> None:
    """`run --exit-when-unapproved` ends with 3 and says that it was told to."""
    with running_agent(server, tmp_path, "impatient") as agent:
        wait_until_said(agent, "state pending")
        agent.stop()
        done = subprocess.run(
            [sys.executable, "-m", "pingmon_agent", "run", "--exit-when-unapproved", "--config", str(agent.config)],
            capture_output=True, text=True, timeout=30, env=clean_environment(),
        )  # fmt: skip
    assert done.returncode == 3
    assert "error this agent is not approved and was told to end then state=pending" in done.stderr


def test_a_wrong_ca_is_said_and_tried_again(server: Server, tmp_path: Path) -> None:
    """The server's certificate does not fit the CA file: one exact sentence; put right, the agent comes by itself."""
    make_pki(tmp_path / "elsewhere")
    right = server.ca_file.read_text()
    with running_agent(server, tmp_path / "agent", "mistrusting", passphrase=server.passphrase("mistrusting")) as agent:
        agent.stop()
        ca = tmp_path / "ca.pem"
        shutil.copy(tmp_path / "elsewhere" / "ca" / "ca.pem", ca)
        agent.config.write_text(agent.config.read_text().replace(str(server.ca_file), str(ca)))
        agent.start()
        wait_until_said(
            agent,
            f"cannot connect: the certificate of 127.0.0.1:{server.port} is not trusted by the CA in {ca} "
            "(unable to get local issuer certificate); copy the CA certificate of this server there",
        )
        ca.write_text(right)
        wait_for(lambda: log_of(agent).count("state pending"), "the agent to connect", deadline_s=20)


def test_a_wrong_passphrase_is_said_and_the_agent_stays(server: Server, tmp_path: Path) -> None:
    """A passphrase with a wrong secret: the server's exact sentence in the agent's log, and no agent registered."""
    kind, number, secret, pin = server.passphrase().split("-")
    wrong = "-".join((kind, number, ("0" if secret[0] != "0" else "1") + secret[1:], pin))
    with running_agent(server, tmp_path, "mistyped", passphrase=wrong) as agent:
        wait_until_said(
            agent,
            "the server refuses this agent: the passphrase is wrong; copy it again or make a new one on the "
            "Passphrases page code=E_PASSPHRASE",
        )
        time.sleep(0.5)
        assert log_of(agent).count("the passphrase is wrong") == 1
    assert server.agent_state("mistyped") is None


def test_everything_works_on_ipv6_alone(tmp_path: Path) -> None:
    """A server on ::1 only: its one-time link leads there, and an agent enrols and delivers through wss://[::1]."""
    with running_server(tmp_path / "server", host="::1") as server:
        server.admin("targets", "add", "here", "::1")
        server.session()
        with running_agent(server, tmp_path / "agent", "six", ip_address="::1") as agent:
            agent.approve()
            wait_for(lambda: times(server, "six"), "a first round over IPv6")
        shown = json.loads(server.admin("agents", "show", "six"))
    assert (shown["ip_address"], shown["observed_ip"]) == ("::1", "::1")
