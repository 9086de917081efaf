"""`make lab` for real: what pingmon shows is what the lab set, an outage is seen while it lasts, and nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pingmon.cli.children import Child
from tests.lab import control, topology
from tests.support.processes import Server, clean_environment, free_port, processes_about, wait_for
from tests.support.web import Session

pytestmark = [pytest.mark.e2e, pytest.mark.root]
ROOT = Path(__file__).parents[2]
ROUNDS = 8  # per pair, for a median


def lab_words(home: Path, port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "tests.lab", "--dir", str(home), "--port", str(port), *more]


def traces_on_host() -> list[str]:
    """Interfaces and named namespaces of the host that bear names of the lab (others may come and go meanwhile)."""
    links = [name for _, name in socket.if_nameindex() if name.startswith(("lab", "net0"))]
    return links + [city for city in topology.load(topology.DEFAULT).cities if Path("/run/netns", city).exists()]


@dataclass
class Lab:
    """A running lab, seen from the host."""

    home: Path
    child: Child
    server: Server
    world: topology.Topology
    session: Session

    def picture(self) -> dict[tuple[str, str], dict[str, Any]]:
        """`/api/v1/grid` as {(from, to): {"state", "rtt_ms"}}, without the diagonal."""
        grid = self.session.json("/api/v1/grid")
        names = {agent["id"]: agent["hostname"] for agent in grid["agents"]}
        cells = {}
        for row, agent in enumerate(grid["agents"]):
            for column, target in enumerate(grid["targets"]):
                a, b = agent["hostname"], names[target["agent_id"]]
                if a != b:
                    cells[a, b] = {"state": grid["state"][row][column], "rtt_ms": grid["rtt_ms"][row][column]}
        return cells

    def rtts(self, a: str, b: str) -> list[float]:
        """What the last hour of a pair holds, newest last."""
        target = next(row["name"] for row in self.server_targets if row["agent_id"] == self.ids[b])
        samples = self.session.json(f"/monitoring/{a}/{target}")["samples"]
        return [sample["rtt_ms"] for sample in samples if sample["rtt_ms"] is not None]

    @property
    def ids(self) -> dict[str, str]:
        return {row["hostname"]: row["id"] for row in self.session.json("/api/v1/grid")["agents"]}

    @property
    def server_targets(self) -> list[dict[str, Any]]:
        return list(self.session.json("/api/v1/grid")["targets"])


@contextmanager
def started(home: Path, port: int, log: Path, until: str, *more: str) -> Iterator[Child]:
    """A lab that has said `until`; stopped by SIGTERM at the end."""
    os.chdir(ROOT)
    child = Child("lab", lab_words(home, port, *more), log, clean_environment())
    try:

        def said() -> bool:
            assert child.running, child.last_lines(40)
            return until in log.read_text()

        wait_for(said, f"the lab to say {until!r}", deadline_s=90)
        yield child
    finally:
        child.stop(20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    top = tmp_path_factory.mktemp("lab")
    home, port, log = top / "lab", free_port(), top / "lab.log"
    with started(home, port, log, "== ready after", "--interval", "1", "--calm") as child:
        server = Server(home, port)
        session = server.visitor()
        session.redeem(log.read_text())
        yield Lab(home, child, server, topology.load(topology.DEFAULT).calm(), session)


def test_every_agent_is_approved(lab: Lab) -> None:
    """The command line on the host shows one approved agent per city."""
    agents = lab.server.cli_json("agents", "list")

    assert {agent["hostname"]: agent["state"] for agent in agents} == dict.fromkeys(lab.world.cities, "approved")


def test_delays_read_back_within_a_millisecond(lab: Lab) -> None:
    """Every ordered pair has an RTT in the picture, and its median is what the lab set, within 1 ms."""
    pairs = [(a, b) for a in lab.world.cities for b in lab.world.cities if a != b]
    wait_for(
        lambda: all(cell["rtt_ms"] is not None for cell in lab.picture().values()) and len(lab.picture()) == len(pairs),
        "an RTT for every pair", deadline_s=30,
    )  # fmt: skip
    wait_for(lambda: len(lab.rtts(*pairs[-1])) >= ROUNDS, f"{ROUNDS} rounds", deadline_s=30, every_s=0.5)

    # A busy machine forwards late, never early: each pair gets a minute to show one quiet window of rounds.
    errors: dict[tuple[str, str], float] = {}

    def read_back() -> bool:
        for a, b in pairs:
            error = statistics.median(lab.rtts(a, b)[-ROUNDS:]) - lab.world.rtt_ms(a, b)
            errors[a, b] = min(errors.get((a, b), error), error, key=abs)
        return max(map(abs, errors.values())) < 1

    try:
        wait_for(read_back, "medians as the lab set them", deadline_s=60, every_s=2)
    except AssertionError:
        off = {pair: error for pair, error in errors.items() if abs(error) >= 1}
        pytest.fail(f"ms off: {off}; {control.send(lab.home, op='state')}")
    print(f"largest error {max(errors.values(), key=abs):.3f} ms of {len(errors)} pairs")


def test_an_outage_is_shown_while_it_lasts(lab: Lab) -> None:
    """A path that is cut turns down in both directions, no other path does, and it comes back by itself."""
    both = {("lon", "nyc"), ("nyc", "lon")}

    def down() -> set[tuple[str, str]]:
        return {pair for pair, cell in lab.picture().items() if cell["state"] == "down"}

    wait_for(lambda: not down(), "a picture without outage")
    assert control.send(lab.home, op="down", a="lon", b="nyc") == {"ok": True}
    wait_for(lambda: down() == both, "lon-nyc to be shown as down", deadline_s=20)
    assert control.send(lab.home, op="state")["down"] == ["lon-nyc"]
    control.send(lab.home, op="auto")
    wait_for(lambda: not down(), "lon-nyc to come back", deadline_s=20)
    wait_for(lambda: all(lab.picture()[pair]["rtt_ms"] is not None for pair in both), "an RTT again", deadline_s=20)


def test_a_second_lab_in_one_directory_is_refused(lab: Lab) -> None:
    """Two labs cannot share a directory; the second says so and harms nothing."""
    done = subprocess.run(
        lab_words(lab.home, free_port()), cwd=ROOT, capture_output=True, text=True, env=clean_environment()
    )

    assert (done.returncode, done.stderr.strip()) == (
        1, f"a lab is running in {lab.home}: stop it, or give this one its own --dir and --port.",
    )  # fmt: skip
    assert lab.child.running


def test_a_killed_lab_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    """kill -9 ends every process, namespace and link; the next start clears the directory; Ctrl-C removes it."""
    home, log = tmp_path / "lab", tmp_path / "lab.log"
    with started(home, free_port(), log, "== server ready") as child:
        assert len(processes_about(home)) >= 5
        child.process.kill()
        wait_for(lambda: not processes_about(home), "all of the lab to end", deadline_s=5)
        assert traces_on_host() == []
    log.unlink()

    with started(home, free_port(), log, "== server ready") as child:
        child.process.send_signal(signal.SIGINT)
        code = child.process.wait(20)

    assert code == 0, child.last_lines(30)
    assert processes_about(home) == []
    assert not home.exists()
    assert traces_on_host() == []


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """A port that somebody holds is named, with the command that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = int(holder.getsockname()[1])
        done = subprocess.run(
            lab_words(tmp_path / "lab", port), cwd=ROOT, capture_output=True, text=True, env=clean_environment()
        )

    assert (done.returncode, done.stderr.strip()) == (
        1,
        f"port {port} of 127.0.0.1 cannot be had (Address already in use): stop what holds it (`ss -ltnp` shows it), "
        f"or choose another with `make lab PORT={port + 1}`.",
    )


def test_foreign_files_are_not_removed(tmp_path: Path) -> None:
    """A directory that holds something else is refused and left as it is."""
    (tmp_path / "thesis.txt").write_text("five years of work")
    done = subprocess.run(
        lab_words(tmp_path, free_port()), cwd=ROOT, capture_output=True, text=True, env=clean_environment()
    )

    assert (done.returncode, done.stderr.strip()) == (
        1, f"{tmp_path} is not empty and no lab's: give --dir a directory of its own.",
    )  # fmt: skip
    assert (tmp_path / "thesis.txt").exists()
