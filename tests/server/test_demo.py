"""`pingmon demo`, as `make run` starts it: real processes, and each way it can be refused."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pingmon.cli.children import Child
from tests.support.processes import Server, clean_environment, free_port, processes_about, wait_for

pytestmark = pytest.mark.e2e


def demo_words(home: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "pingmon", "demo", "--dir", str(home), "--port", str(port)]


@contextmanager
def running_demo(tmp_path: Path, port: int) -> Iterator[Child]:
    child = Child("demo", demo_words(tmp_path / "run", port), tmp_path / "demo.log", clean_environment())
    try:
        yield child
    finally:
        child.stop()


def wait_until_shown(child: Child) -> str:
    def shown() -> str | None:
        assert child.running, child.last_lines(30)
        text = child.log.read_text()
        return text if "stop            Ctrl-C" in text else None

    return wait_for(shown, "the demo to be ready", deadline_s=60)


def refusal(home: Path, port: int, *prefix: str) -> tuple[int, str]:
    """(exit code, the one line on stderr) of a demo that cannot start."""
    done = subprocess.run(
        [*prefix, *demo_words(home, port)], capture_output=True, text=True, timeout=60, env=clean_environment()
    )
    return done.returncode, done.stderr.strip().removeprefix("pingmon: ")


def test_demo_shows_a_measured_cell_and_stops_cleanly(tmp_path: Path) -> None:
    """The demo prints link and time, the picture has an RTT for each loopback target, Ctrl-C leaves no process."""
    port = free_port()
    with running_demo(tmp_path, port) as child:
        said = wait_until_shown(child)
        server = Server(tmp_path / "run", port)
        session = server.visitor()
        session.redeem(said)
        history = session.json("/monitoring/demo/127.0.0.1")
        grid = session.json("/api/v1/grid")
        child.process.send_signal(signal.SIGINT)
        code = child.process.wait(20)

    assert "first coloured cell" in said
    assert history["samples"][-1]["status"] == "ok"
    assert {"127.0.0.1", "127.0.0.2", "127.0.0.3"} <= {target["address"] for target in grid["targets"]}
    assert all(rtt is not None and rtt < 50 for rtt in grid["rtt_ms"][0])
    assert code == 0, child.last_lines(30)
    assert processes_about(tmp_path / "run") == []


def test_second_start_keeps_everything_and_asks_to_sign_in(tmp_path: Path) -> None:
    """A second start knows the agent, the administrator and the certificate, on another port as well."""
    first, second = free_port(), free_port()
    with running_demo(tmp_path, first) as child:
        said = wait_until_shown(child)
        Server(tmp_path / "run", first).visitor().redeem(said)
    certificate = (tmp_path / "run/server.pem").read_bytes()
    (tmp_path / "demo.log").unlink()

    with running_demo(tmp_path, second) as child:
        said = wait_until_shown(child)
        agents = Server(tmp_path / "run", second).cli_json("agents", "list")

    assert "/welcome/" not in said
    assert "sign in" in said
    assert [agent["state"] for agent in agents] == ["approved"]
    assert (tmp_path / "run/server.pem").read_bytes() == certificate


def test_nothing_outlives_a_killed_demo(tmp_path: Path) -> None:
    """kill -9 of the demo takes server and agent with it."""
    with running_demo(tmp_path, free_port()) as child:
        wait_until_shown(child)
        assert len(processes_about(tmp_path / "run")) == 3
        child.process.kill()

        wait_for(lambda: not processes_about(tmp_path / "run"), "server and agent to end", deadline_s=5)


def test_a_program_that_dies_is_shown(tmp_path: Path) -> None:
    """When the agent is killed the demo stops the rest, and tells the code and the end of the log."""
    with running_demo(tmp_path, free_port()) as child:
        wait_until_shown(child)
        agent = next(
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and b"pingmon_agent" in (entry / "cmdline").read_bytes()
            and str(tmp_path).encode() in (entry / "cmdline").read_bytes()
        )  # fmt: skip
        os.kill(agent, signal.SIGKILL)
        code = child.process.wait(20)

    assert code == 1
    assert (
        f"the agent ended with code -9; put right what its last lines say (all of them: {tmp_path}/run/agent.log)"
        in (child.last_lines(50))
    )
    assert processes_about(tmp_path / "run") == []


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """A port that somebody holds is named, with the command that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = int(holder.getsockname()[1])
        code, said = refusal(tmp_path / "run", port)

    assert code == 1
    assert said == (
        f"port {port} of 127.0.0.1 cannot be had (Address already in use): stop what holds it (`ss -ltnp` shows it), "
        f"or choose another, as in `make run PORT={port + 1}` or `pingmon demo --port {port + 1}`"
    )


def test_a_second_demo_in_one_directory_is_one_sentence(tmp_path: Path) -> None:
    """Two demos cannot share a directory; the second says so."""
    with running_demo(tmp_path, free_port()) as child:
        wait_for(lambda: (tmp_path / "run/server.toml").exists() or not child.running, "the first demo to begin")
        code, said = refusal(tmp_path / "run", free_port())

    assert code == 1
    assert said == (f"a demo is running in {tmp_path}/run already: stop it, or give this one another --dir and --port")


def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    """A --dir that is a file is refused with what to do."""
    (tmp_path / "run").write_text("")

    assert refusal(tmp_path / "run", free_port()) == (
        1, f"cannot use {tmp_path}/run (File exists): give --dir a directory that you may write to",
    )  # fmt: skip


@pytest.mark.root
def test_missing_icmp_permission_is_one_sentence(tmp_path: Path) -> None:
    """A user who may not send pings is told the one command that allows it."""
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv belongs to util-linux, which every Debian has"
    # A fresh network namespace lets no group ping, whatever this host does; without CAP_NET_RAW nothing else does.
    prefix = ("unshare", "--net", setpriv, "--bounding-set=-net_raw", "--inh-caps=-net_raw")

    code, said = refusal(tmp_path / "run", free_port(), *prefix)

    assert code == 1
    assert said == (
        "this user may not send pings: run `sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'` once, "
        "then the same command again"
    )
