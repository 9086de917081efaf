"""The faults cannot rot, and the oracle can see: small runs of some, one without its guard, and made-up damage."""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from pingmon.store.rounds import SqliteRounds
from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring
from tests.bench.facts import OUT
from tests.bench.world import ROOT

from .__main__ import find_faults
from .damage import Hit, blocks_in, hurt
from .lives import Life, Lives, live
from .oracle import Verdict, acked_too_early, judge
from .powercut import look
from .table import rows
from .world import Run


def run(*flags: str) -> tuple[int, dict[str, float], str]:
    """Exit code, the numbers of the one RESULT line, and all that was said."""
    command = [sys.executable, "-m", "tests.faults", "--quick", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    said = done.stdout + done.stderr
    (line,) = [line.split() for line in said.splitlines() if line.startswith("RESULT ")] or [["", "", ""]]
    return done.returncode, {key: float(value) for key, value in (word.split("=") for word in line[2:])}, said


@pytest.mark.e2e
@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 27])
def test_a_fault_in_small(number: int) -> None:
    """Server and agents killed, also inside a commit, power cut, too long an outage, files damaged: lost is only what
    is allowed."""
    code, found, said = run(str(number))

    assert code == 0, said
    assert (found["lost"], found["dup"], found["altered"], found["passed"]) == (0, 0, 0, 1)
    assert found["created"] == found["stored"] + found["expired"] + found["rejected"] + found["damaged"] > 0
    assert (found["allowed"] > 0) == (number in (7, 27))
    kept = json.loads((OUT / "faults.json").read_text())["faults"][str(number)]
    assert kept["result"]["created"] == found["created"]


@pytest.mark.e2e
def test_without_its_guard_a_fault_does_not_pass() -> None:
    """Cursors committed ahead of the rounds: the oracle sees the loss, and the seed and the last events are printed."""
    code, found, said = run("2", "--seed", "1", "--without", "one-transaction")

    assert code == 1
    assert found["lost"] > 0
    assert found["cursor_off"] > 0
    assert "seed 1" in said
    assert "IS NOT stored" in said
    assert "killed before COMMIT" in said


@pytest.mark.e2e
def test_without_a_search_for_the_next_block_more_is_lost_than_was_damaged() -> None:
    """Rings that are read up to the first damage: the oracle sees that whole blocks behind it are missing."""
    code, found, said = run("27", "--seed", "1", "--without", "next-block")

    assert code == 1
    assert found["lost"] > 0, said
    assert found["allowed"] > 0


def test_where_a_ring_is_damaged_is_known_before_it_is_read(tmp_path: Path) -> None:
    """The blocks of a segment by its format alone, what a cut and a changed byte hit, and that a file did change."""
    host = Ring(lambda: 30.0, journal=Journal(tmp_path, 1 << 20))
    for number in range(3):
        host.append(started_ms=number, revision=1, samples=array("i", [number] * 4), disturbed=False)
    epoch = host.epoch
    host.close()
    (file,) = tmp_path.glob("*.ring")
    state, *rounds = blocks_in(file)
    size = file.stat().st_size

    assert not state.is_round
    assert [(b.is_round, b.epoch, b.seq) for b in rounds] == [(True, epoch, seq) for seq in (1, 2, 3)]
    assert (state.begin, rounds[-1].end) == (16, size)
    assert [Hit(size, rounds[1].begin + 1, ()).touches(b.begin, b.end) for b in rounds] == [False, True, True]
    assert [Hit(size, size, (rounds[1].end - 1,)).touches(b.begin, b.end) for b in rounds] == [False, True, False]
    before = file.read_bytes()
    hurt(file, random.Random(1))
    assert file.read_bytes() != before


class _Life(Life):
    """In a thread: a fork of the process that runs the tests would take their threads' locks along."""

    thread: threading.Thread

    def end(self) -> int:
        self.line.shutdown(socket.SHUT_WR)
        self.thread.join()
        self.line.close()
        return 0


class _Lives(Lives):
    def begin(self, store: type[SqliteRounds]) -> Life:
        ours, theirs = socket.socketpair()
        life = _Life(ours)
        life.thread = threading.Thread(target=live, args=(self.config, store, theirs))
        life.thread.start()
        return life


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    """Two agents and a database; nothing runs."""
    made = _Lives(Run(tmp_path, seed=1), agents=2, spacing_s=1.0, batch=4)
    yield made
    made.close()


def damaged(lives: Lives, damage: str) -> Verdict:
    """Ten rounds for each agent, all stored; then the damage; then the oracle."""
    lives.drain()
    for _ in range(10):
        for agent in lives.agents.values():
            agent.measure()
    lives.drain()
    db = sqlite3.connect(lives.data / "samples.db", isolation_level=None)
    db.execute(damage)
    db.close()
    return lives.verdict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("SELECT 1", (0, 0, 0)),
        ("DELETE FROM rounds WHERE agent_no=1 AND seq=4", (10, 0, 0)),
        ("UPDATE rounds SET started_ms=started_ms+1 WHERE agent_no=2 AND seq>9", (0, 0, 10)),
        ("UPDATE rounds SET samples=zeroblob(40) WHERE agent_no=1 AND seq=2", (0, 0, 10)),
        ("UPDATE rounds SET seq=99 WHERE agent_no=1 AND seq=10", (10, 0, 10)),
        ("INSERT INTO rounds SELECT agent_no,started_ms+1,epoch_no,seq,revision,flags,received_ms,samples FROM rounds "
         "WHERE agent_no=1 AND seq=3", (0, 10, 10)),
    ],
)  # fmt: skip
def test_the_oracle_sees_damage(lives: Lives, damage: str, expected: tuple[int, int, int]) -> None:
    """A row less, another time, another value, a row of nobody, a row twice: each is counted as what it is."""
    verdict = damaged(lives, damage)

    assert (verdict.lost, verdict.dup, verdict.altered) == expected
    assert verdict.good == (expected == (0, 0, 0))
    assert verdict.created == 200


def test_what_an_agent_gave_up_is_lost_unless_the_fault_allows_it(tmp_path: Path, lives: Lives) -> None:
    """Expired is accounted for, but forgiven only where the fault names the round; refused is never forgiven."""
    agent = lives.agents["agent-00"]
    lives.drain()
    for seq in (1, 2):
        agent.log.created(agent.ring.epoch, seq, seq, array("i", [5] * 10).tobytes())
    agent.log.gave_up(agent.ring.epoch, 1, 1, "expired")
    agent.log.gave_up(agent.ring.epoch, 2, 2, "E_TIME")

    strict, mild = judge(tmp_path, lives.data), judge(tmp_path, lives.data, lambda key, _: key[2] == 1)

    assert (strict.expired, strict.rejected, strict.lost, strict.allowed) == (10, 10, 20, 0)
    assert (mild.lost, mild.allowed, mild.balanced) == (10, 10, True)


def test_only_rounds_that_the_fault_spoilt_may_be_damaged(tmp_path: Path, lives: Lives) -> None:
    """Missing and spoilt is allowed, whatever its agent says of it; missing beside it is lost; what arrived counts."""
    agent = lives.agents["agent-00"]
    lives.drain()
    epoch = agent.ring.epoch
    for seq in (1, 2, 3):
        agent.log.created(epoch, seq, seq, array("i", [5] * 10).tobytes())
    agent.log.gave_up(epoch, 2, 2, "damaged")

    found = judge(tmp_path, lives.data, damaged={("agent-00", epoch, 1), ("agent-00", epoch, 2)})

    assert (found.damaged, found.allowed, found.lost, found.balanced) == (20, 20, 10, False)
    assert (found + found).damaged == 40


def test_an_acknowledgement_ahead_of_the_database_is_seen(tmp_path: Path, lives: Lives) -> None:
    """The side log says 5 of a run that the database knows nothing of."""
    lives.drain()
    assert acked_too_early(tmp_path, lives.data) == 0

    lives.agents["agent-01"].log.acked(lives.agents["agent-01"].ring.epoch, 5)

    assert acked_too_early(tmp_path, lives.data) == 5


def test_a_power_cut_takes_nothing_that_was_synced(tmp_path: Path) -> None:
    """Of a log only what came after the last checkpoint may go: all before the first, nothing right behind one."""
    path = tmp_path / "a.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x)")
    before = look(path)
    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    behind = look(path)
    db.execute("INSERT INTO t VALUES (1)")
    anew = look(path)
    db.close()

    assert before.safe == 32 < before.end
    assert behind.safe == behind.end == before.end
    assert anew.safe == 32 < anew.end < before.end


def test_every_fault_says_what_it_is() -> None:
    """Numbers of files and faults agree, and each has a sentence for injection, passing and every guard."""
    faults = find_faults()

    assert {f"fault_{number:02}.py" for number in faults} == {p.name for p in Path(__file__).parent.glob("fault_*.py")}
    assert all(f.title and f.inject and f.passes.endswith(".") and f.guards for f in faults.values())
    assert all("|" not in f.inject + f.passes + f.short for f in faults.values())


def test_the_table_has_a_row_for_each_fault() -> None:
    """Accounts and figures of a run, with with thousands set apart."""
    account = {"lost": 0, "dup": 0, "altered": 0, "allowed": 12_000, "created": 1_200_000, "drain_s": 3.5}
    (_, _, row) = rows([(find_faults()[7], {"result": account})]).splitlines()

    assert "| 0 / 0 / 0 / 12,000 | 1,200,000 | drain_s 3.5 |" in row
    assert row.startswith("| 7 | 31-minute outage |")
