"""Backup, restore, check: nothing is lost but what the backup lacks, and nothing is taken for something else."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from alembic import command

from pingmon.services.bundle import Services, open_services
from pingmon.store import backup as module
from pingmon.store import schema
from pingmon.store.backup import BackupError, backup, restore
from pingmon.store.check import check
from pingmon.store.compaction import HOUR_MS
from pingmon.store.directory import pack_ids
from pingmon.store.lock import LockError, held
from pingmon.store.models import TargetSet
from pingmon.store.rounds import StoredRound
from tests.support.processes import running_server

from .conftest import Approve, FakeClock, hello, passphrase
from .test_flow import Agent, Wire
from .test_store_chunks import compact_all


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


@pytest.fixture
def filled(services: Services, approve: Approve, clock: FakeClock) -> Services:
    """One agent with two targets; three hours of rounds, of which two are chunks, and worked into minutes and hours."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    approve()
    clock.now_ms = clock.now_ms // HOUR_MS * HOUR_MS
    services.rounds.write(
        [a_round(i + 1, clock.now_ms - 3 * HOUR_MS + 15_000 * i) for i in range(720)], {(1, "e"): 720}, clock.now_ms
    )
    compact_all(services.rounds, clock.now_ms - HOUR_MS)
    for due in services.rounds.hours_due(clock.now_ms - HOUR_MS):
        services.rounds.save_rolled(services.rounds.work_out(due, services.registry.columns(1)))
    return services


def a_round(seq: int, started_ms: int, revision: int = 1, width: int = 2) -> StoredRound:
    return StoredRound(
        agent_no=1,
        epoch="e",
        seq=seq,
        started_ms=started_ms,
        revision=revision,
        flags=0,
        received_ms=started_ms + 1000,
        samples=array("i", range(seq, seq + width)),
    )


def sql(services: Services, name: str, statement: str) -> None:
    with sqlite3.connect(services.config.data_dir / name) as db:
        db.execute(statement)
    db.close()


def test_a_backup_brings_everything_back(filled: Services, file: Path, clock: FakeClock) -> None:
    """Rounds, cursors, agents, targets; what was there lies aside, whole; nobody else can read the file."""
    before, cursors = list(filled.rounds.since(0)), filled.rounds.cursors()
    data_dir = filled.config.data_dir
    size = backup(data_dir, file, clock.now_ms)
    filled.rounds.write([a_round(721, clock.now_ms)], {(1, "e"): 721}, clock.now_ms)
    filled.registry.put_targets([("c", "192.0.2.12")], "test")
    filled.close()

    done = restore(file, data_dir, clock.now_ms, "test")

    assert (size, oct(file.stat().st_mode & 0o777)) == (file.stat().st_size, "0o600")
    assert (done.created_ms, done.found.raw_rounds, done.found.compacted_rounds) == (clock.now_ms, 240, 480)
    again = open_services(filled.config, clock)
    assert list(again.rounds.since(0)) == before
    assert again.rounds.cursors() == cursors
    assert [t.name for t in again.registry.targets()] == ["a", "b", "probe-1"]
    with again.directory.orm() as session:
        assert session.connection().exec_driver_sql("SELECT action, subject FROM audit ORDER BY id DESC").first() == (
            "restore",
            "backup.tar",
        )
    again.close()
    assert done.aside is not None
    assert check(done.aside).raw_rounds == 241
    assert sorted(p.name for p in data_dir.iterdir() if p.name.startswith(".")) == []


def test_a_backup_under_load_is_one_picture(
    filled: Services, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits all the time, new target sets too; cursors and rounds are of one moment all the same."""
    monkeypatch.setattr(module, "STEP_PAGES", 4)
    ended, turn = threading.Event(), 0

    def go_on() -> None:
        nonlocal turn
        while not ended.is_set():
            turn += 1
            with filled.directory.transaction() as tx:
                row = TargetSet(agent_no=1, revision=100 + turn, target_ids=pack_ids([1, 2]), created_ms=clock.now_ms)
                tx.add_target_set(row)
            fresh = [a_round(720 + turn, clock.now_ms + turn, revision=100 + turn)]
            filled.rounds.write(fresh, {(1, "e"): 720 + turn}, clock.now_ms)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        backup(filled.config.data_dir, file, clock.now_ms)
    finally:
        ended.set()
        thread.join()
    made = turn
    filled.close()
    done = restore(file, filled.config.data_dir, clock.now_ms, "test")

    assert done.found.problems == []
    assert made > 10
    with sqlite3.connect(filled.config.data_dir / "samples.db") as db:
        (upto,) = db.execute("SELECT upto FROM epochs").fetchone()
        (newest,) = db.execute("SELECT max(seq) FROM rounds").fetchone()
    db.close()
    assert upto == newest < 720 + made


def test_no_round_is_without_its_set(
    filled: Services, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set and a round of it come between the two pictures: the samples are pictured first, so the set is there."""
    real = module._pictured

    def slow(path: Path) -> sqlite3.Connection:
        picture = real(path)
        filled.registry.put_targets([("a", "192.0.2.10"), (f"x {path.name}", "192.0.2.11")], "test")
        revision = filled.registry.snapshot.sets[1].revision
        filled.rounds.write([a_round(720 + revision, clock.now_ms, revision)], {(1, "e"): 720 + revision}, clock.now_ms)
        return picture

    monkeypatch.setattr(module, "_pictured", slow)
    backup(filled.config.data_dir, file, clock.now_ms)
    filled.close()

    assert restore(file, filled.config.data_dir, clock.now_ms, "test").found.problems == []


@pytest.fixture
def running(services: Services) -> Iterator[Callable[[Services], threading.Thread]]:
    threads: list[tuple[Services, threading.Thread]] = []

    def start(opened: Services) -> threading.Thread:
        thread = threading.Thread(target=opened.ingest.run)
        threads.append((opened, thread))
        thread.start()
        return thread

    yield start
    for opened, thread in threads:
        opened.ingest.stop()
        thread.join(5)


def test_rounds_of_forgotten_sets_are_given_up_and_never_mistaken(
    services: Services,
    clock: FakeClock,
    file: Path,
    running: Callable[[Services], threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent holds rounds of a set that was made after the backup, and the next set would have had its number.

    Rounds of known sets that the backup does not have come again from the ring; those of the forgotten set are refused,
    given up and counted, in a finite number of messages; the agent goes on under a number never given before.
    """
    monkeypatch.setattr("pingmon.services.ingest.GROUP_S", 0)
    thread = running(services)
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = Agent(clock, passphrase(services))
    wire = Wire(services, agent.delivery, Random(1))
    wire.connect()
    services.registry.approve("probe-1", "test")
    wire.connect()
    wire.push_targets()
    measure(agent, wire, clock, 5)
    backup(services.config.data_dir, file, clock.now_ms)
    measure(agent, wire, clock, 6)
    services.registry.put_targets([("a", "192.0.2.10"), ("forgotten", "192.0.2.12")], "test")
    wire.push_targets()
    measure(agent, wire, clock, 7)
    forgotten = agent.targets[-1].revision
    services.ingest.stop()
    thread.join(5)
    services.close()

    restore(file, services.config.data_dir, clock.now_ms, "test")
    again = open_services(services.config, clock)
    running(again)
    again.registry.put_targets([("a", "192.0.2.10"), ("other", "192.0.2.13")], "test")
    wire.services = again
    wire.connect()
    wire.push_targets()
    messages = settle(agent, wire, clock)
    measure(agent, wire, clock, 3)
    settle(agent, wire, clock)

    stored = {r.seq: r.revision for r in again.rounds.since(0)}
    assert sorted(stored) == [*range(1, 12), *range(19, 22)]
    assert {stored[seq] for seq in range(1, 12)} == {agent.targets[0].revision}
    assert agent.targets[-1].revision > forgotten + 1_000_000
    assert {stored[seq] for seq in range(19, 22)} == {agent.targets[-1].revision}
    assert agent.delivery.counts.given_up == 7
    assert agent.delivery.counts.refused["E_TARGET"] <= 7 + 4
    assert messages < 30
    assert agent.delivery.next_report(clock.monotonic()) is None
    again.close()


def measure(agent: Agent, wire: Wire, clock: FakeClock, count: int) -> None:
    for _ in range(count):
        agent.measure()
        clock.advance(5)
        wire.carry(clock.monotonic(), "good")


def settle(agent: Agent, wire: Wire, clock: FakeClock) -> int:
    """Let the agent say all it has to say; returns in how many messages."""
    for count in range(100):
        clock.advance(10)
        before = agent.delivery.counts.reports, dict(agent.delivery.counts.refused)
        wire.carry(clock.monotonic(), "good")
        if before == (agent.delivery.counts.reports, agent.delivery.counts.refused):
            return count
    raise AssertionError("the agent never comes to an end")


def test_two_restores_of_one_backup_give_different_numbers(filled: Services, file: Path, clock: FakeClock) -> None:
    """Agents may hold rounds of the first restored life too; pending agents have a number to go on from as well."""
    filled.enrolment.greet(hello(passphrase(filled), "probe-2"), "192.0.2.9")
    backup(filled.config.data_dir, file, clock.now_ms)
    filled.close()
    seen: list[dict[int, int]] = []
    for _ in range(2):
        restore(file, filled.config.data_dir, clock.now_ms, "test")
        with sqlite3.connect(filled.config.data_dir / "pingmon.db") as db:
            seen.append(
                dict(db.execute("SELECT agent_no, max(revision) FROM target_sets GROUP BY agent_no").fetchall())
            )
        db.close()
        clock.advance(1)

    assert seen[0].keys() == seen[1].keys() == {1, 2}
    assert all(seen[0][no] < seen[1][no] for no in (1, 2))


def test_a_restore_refuses_a_running_server(filled: Services, file: Path, clock: FakeClock) -> None:
    """One lock for both: the server holds it as long as it runs, a restore as long as it works."""
    data_dir = filled.config.data_dir
    backup(data_dir, file, clock.now_ms)

    with held(data_dir), pytest.raises(LockError, match=r"a pingmon server or restore is at work in .*; stop it first"):
        restore(file, data_dir, clock.now_ms, "test")
    assert len(list(filled.rounds.since(0))) == 720


def test_a_restore_that_was_cut_off_is_done_again(
    filled: Services, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half old and half new must not be served: the server refuses until a restore came to its end."""
    data_dir = filled.config.data_dir
    backup(data_dir, file, clock.now_ms)
    filled.close()

    def pulled(_folder: Path) -> None:
        raise OSError(5, "pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_sync", pulled)
        with pytest.raises(OSError, match="pulled the plug"):
            restore(file, data_dir, clock.now_ms, "test")
    with pytest.raises(LockError, match=r"was cut off; run `pingmon restore FILE` again"), held(data_dir):
        pass

    clock.advance(1)
    assert restore(file, data_dir, clock.now_ms, "test").found.compacted_rounds == 480
    with held(data_dir):
        assert check(data_dir).problems == []


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-50_000] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60_000])


def no_tar(file: Path) -> None:
    file.write_text("not a backup")


def rewritten(file: Path, change: Callable[[Path], None]) -> None:
    """The backup as somebody with tar would make it: manifest and all fit, what is inside does not."""
    work = file.parent / "inside"
    with tarfile.open(file) as tar:
        tar.extractall(work, filter="data")
    change(work)
    manifest = json.loads((work / "manifest.json").read_text())
    for name, told in manifest["files"].items():
        told |= {"bytes": (work / name).stat().st_size, "sha256": module._digest(work / name)}
    (work / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(file, "w") as tar:
        for member in ("manifest.json", "pingmon.db", "samples.db"):
            tar.add(work / member, member)
    shutil.rmtree(work)


def run_sql(name: str, statement: str) -> Callable[[Path], None]:
    def change(work: Path) -> None:
        with sqlite3.connect(work / name) as db:
            db.execute(statement)
        db.close()

    return change


def newer(work: Path) -> None:
    manifest = json.loads((work / "manifest.json").read_text())
    (work / "manifest.json").write_text(json.dumps(manifest | {"format": 2, "version": "9.9"}))


def broken_page(work: Path) -> None:
    data = bytearray((work / "samples.db").read_bytes())
    data[3 * 4096 : 3 * 4096 + 100] = bytes(100)
    (work / "samples.db").write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (flip, r"is no whole backup of pingmon \(samples.db in it is not what was written\); use another one"),
        (cut, r"is no whole backup of pingmon \(.*\); use another one"),
        (no_tar, r"is no whole backup of pingmon \(.*\); use another one"),
        (lambda file: rewritten(file, newer), r"was made by a newer pingmon \(9.9\); restore it with that one"),
        (lambda file: rewritten(file, broken_page), r"cannot be restored: samples.db is damaged: .*; use another one"),
        (
            lambda file: rewritten(file, run_sql("pingmon.db", "DELETE FROM target_sets")),
            r"cannot be restored: rounds of agent 1: pingmon.db does not have their target set 1; use another one",
        ),
        (
            lambda file: rewritten(file, run_sql("samples.db", "UPDATE alembic_version SET version_num='future'")),
            r"was written by a newer pingmon \(schema future\)",
        ),
    ],
)
def test_a_bad_backup_changes_nothing(
    filled: Services, file: Path, clock: FakeClock, damage: Callable[[Path], None], sentence: str
) -> None:
    """Checked whole before anything is touched; the sentence says why."""
    data_dir = filled.config.data_dir
    backup(data_dir, file, clock.now_ms)
    before = sorted(p.name for p in data_dir.iterdir())
    damage(file)

    with pytest.raises((BackupError, schema.SchemaError), match=sentence):
        restore(file, data_dir, clock.now_ms, "test")

    assert sorted({*before, "server.lock"}) == sorted(p.name for p in data_dir.iterdir())
    assert len(list(filled.rounds.since(0))) == 720


def test_a_backup_of_an_older_schema_is_brought_up_to_date(filled: Services, file: Path, clock: FakeClock) -> None:
    """Made before an upgrade of the program, restored after it."""
    data_dir = filled.config.data_dir
    filled.rounds.drop_before(clock.now_ms)
    filled.rounds.write([a_round(721, clock.now_ms)], {(1, "e"): 721}, clock.now_ms)
    filled.close()
    engine = schema.open_engine(data_dir / "samples.db")
    cfg = schema.config("samples")
    with engine.begin() as connection:
        cfg.attributes["connection"] = connection
        command.downgrade(cfg, "samples_0001")
    engine.dispose()
    backup(data_dir, file, clock.now_ms)

    assert restore(file, data_dir, clock.now_ms, "test").found.raw_rounds == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "statement", "sentence"),
    [
        (
            "samples.db",
            "UPDATE epochs SET upto = 719",
            "epoch e of agent 1 has round 720, but its cursor stands at 719",
        ),
        (
            "samples.db",
            "UPDATE chunks SET data = zeroblob(length(data)) WHERE no = 2",
            "chunk 2 of agent 1 cannot be read: its checksum does not fit; its 240 rounds are lost",
        ),
        (
            "samples.db",
            "UPDATE chunks SET rounds = 239 WHERE no = 1",
            "chunk 1 of agent 1 cannot be read: the checksum of its frame does not fit; its 239 rounds are lost",
        ),
        (
            "samples.db",
            "UPDATE rounds SET revision = 7",
            "rounds of agent 1: pingmon.db does not have their target set 7",
        ),
        (
            "pingmon.db",
            "UPDATE target_sets SET target_ids = x'01000000'",
            "rounds of agent 1: 2 samples a round, but target set 1 has 1 columns",
        ),
        (
            "samples.db",
            "INSERT INTO rounds SELECT agent_no, started_ms + 1, epoch_no, seq, revision, flags, received_ms, samples"
            " FROM rounds WHERE seq > 715",
            "5 rounds of agent 1 are stored twice",
        ),
        (
            "samples.db",
            "UPDATE rounds SET epoch_no = 9",
            "rounds of agent 1 belong to epoch number 9, which samples.db does not have",
        ),
        (
            "samples.db",
            "UPDATE minute_rollups SET data = zeroblob(length(data))",
            "minutes of agent 1, targets from id 0, hour 499997 are damaged: Error -3 while decompressing data: "
            "unknown compression method",
        ),
        (
            "samples.db",
            "UPDATE hour_rollups SET data = (SELECT data FROM minute_rollups LIMIT 1)",
            "hours of agent 1, targets from id 0, hour 499997 are damaged: its 4494 bytes are not 2 targets of 1",
        ),
    ],
)
def test_the_check_finds(filled: Services, name: str, statement: str, sentence: str) -> None:
    """Each way in which the files may disagree has its sentence; sound files have none."""
    assert check(filled.config.data_dir).problems == []
    sql(filled, name, statement)

    assert check(filled.config.data_dir).problems[0] == sentence


@pytest.mark.e2e
def test_the_commands(tmp_path: Path) -> None:
    """Backup and check beside a running server; restore and a second server are refused until it stops."""
    with running_server(tmp_path / "server") as server:
        said = server.cli("backup", str(tmp_path)).stdout.split()
        checked = server.cli("db", "check").stdout
        refused = [server.cli(*words, check=False) for words in (("restore", said[0]), ("serve",))]
        again = server.cli("backup", said[0], check=False)
        assert server.stop() == 0
        (tmp_path / "server" / "data" / "pepper").unlink()
        restored = server.cli("restore", said[0])
        sql_file = tmp_path / "server" / "data" / "samples.db"
        server.start()
        assert server.stop() == 0

    assert (Path(said[0]).stat().st_size, said[2]) == (int(said[1]), "bytes")
    assert Path(said[0]).name.startswith("pingmon-2")
    assert checked == "0 agents, 0 raw rounds, 0 rounds in 0 chunks, 0 samples\n"
    for done in refused:
        assert done.returncode == 1
        assert done.stderr.endswith(f"at work in {sql_file.parent}; stop it first\n")
    assert (again.returncode, again.stderr) == (
        1,
        f"pingmon: {said[0]} exists already; name another file, or a directory\n",
    )
    assert restored.stdout.endswith(": 0 agents, 0 rounds\n")
    assert f"what was there before lies in {sql_file.parent}/replaced-" in restored.stderr
    assert f"there is no {sql_file.parent}/pepper: copy it from the old host" in restored.stderr
    sql_file.write_bytes(b"not a database")
    broken = server.cli("db", "check", check=False)
    assert (broken.returncode, broken.stderr.splitlines()[0]) == (
        1,
        "pingmon: samples.db is damaged: file is not a database",
    )
