"""What both programs refuse before they start, each with its exit code and exact sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import Agent, Server, clean_environment, make_pki, write_agent, write_server

pytestmark = pytest.mark.e2e


def outcome(*words: str) -> tuple[int, str]:
    """(exit code, standard error) of a program that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, env=clean_environment()
    )
    return done.returncode, done.stderr.strip()


@pytest.fixture
def configured(tmp_path: Path) -> Server:
    """A server that was set up and not started."""
    server = Server(tmp_path, 1)
    make_pki(tmp_path)
    write_server(server, interval_s=1, mesh=False)
    return server


@pytest.fixture
def agent(configured: Server) -> Agent:
    """An agent of that server, not started."""
    agent = Agent(configured, configured.directory / "agent", "probe-1")
    write_agent(
        agent, url="wss://127.0.0.1:1", ip_address="127.0.0.1", passphrase=f"pm1-{8 * '0'}-{26 * '0'}-{32 * '0'}"
    )
    return agent


@pytest.mark.parametrize("command", [("serve",), ("config", "check")], ids=" ".join)
def test_a_certificate_of_another_key_is_refused(configured: Server, command: tuple[str, ...]) -> None:
    """A certificate that does not belong to its key: exit code 78 and the names of both files."""
    other = configured.directory / "other"
    make_pki(other)
    key = configured.directory / "server.key"
    key.write_bytes((other / "server.key").read_bytes())
    assert outcome("pingmon", *command, "--config", str(configured.config)) == (
        78,
        f"pingmon: certificate {configured.directory / 'server.pem'} does not belong to key {key}; "
        "issue both together with `pingmon pki issue`",
    )


def test_the_server_refuses_an_unknown_key(configured: Server) -> None:
    """An unknown key in server.toml: exit code 78, the key, and what there is."""
    configured.config.write_text(configured.config.read_text() + "colour = 'red'\n")
    code, said = outcome("pingmon", "serve", "--config", str(configured.config))
    assert (code, said) == (
        78,
        "pingmon: probing.colour is not a setting; [probing] has interval_s, mesh, warn_ms, bad_ms",
    )


def test_the_agent_refuses_an_unknown_key(agent: Agent) -> None:
    """An unknown key in agent.toml: exit code 78, the key, and what there is."""
    agent.config.write_text(agent.config.read_text() + "colour = 'red'\n")
    code, said = outcome("pingmon_agent", "run", "--config", str(agent.config))
    assert (code, said) == (78, "pingmon-agent: unknown key metrics.colour; allowed in [metrics] are listen")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_the_agent_refuses_every_way_but_wss(agent: Agent, url: str) -> None:
    """A server URL that is not wss:// is refused with exit code 78 and the reason."""
    agent.config.write_text(agent.config.read_text().replace("wss://127.0.0.1:1", url))
    code, said = outcome("pingmon_agent", "run", "--config", str(agent.config))
    assert (code, said) == (
        78,
        f"pingmon-agent: server.url is {url!r}; only wss:// is allowed, as the passphrase and all results cross this "
        "line",
    )


def test_the_server_refuses_an_unknown_async_mode(configured: Server) -> None:
    """PINGMON_ASYNC_MODE with a word that is no mode: exit code 78 and the modes there are."""
    done = subprocess.run(
        [sys.executable, "-m", "pingmon", "serve", "--config", str(configured.config)],
        capture_output=True, text=True, timeout=60, env=clean_environment(PINGMON_ASYNC_MODE="twisted"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        78,
        "pingmon: PINGMON_ASYNC_MODE='twisted' is no mode; use one of eventlet, gevent, threading\n",
    )
