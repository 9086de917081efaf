"""Both databases: migrations, transactions, the packed rows, retention."""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st

from pingmon.config import Config
from pingmon.services.bundle import Services, open_services
from pingmon.store import schema
from pingmon.store.directory import Directory, DirectoryError, pack_ids, unpack_ids
from pingmon.store.rounds import DELETE_BATCH, SqliteRounds, StoredRound, StoreError
from tests.support.fresh import fresh_rounds

from .conftest import FakeClock

HOUR_MS = 3_600_000


def row(
    seq: int, started_ms: int, *, agent_no: int = 1, epoch: str = "e", values: tuple[int, ...] = (1,)
) -> StoredRound:
    return StoredRound(
        agent_no=agent_no,
        epoch=epoch,
        seq=seq,
        started_ms=started_ms,
        revision=1,
        flags=0,
        received_ms=started_ms,
        samples=array("i", values),
    )


@pytest.mark.parametrize("which", ["directory", "samples"])
def test_models_and_migrations_agree(tmp_path: Path, which: str) -> None:
    """A table changed in models.py without a migration fails here; down and up again works."""
    engine = schema.open_engine(tmp_path / "x.db")
    schema.upgrade(engine, which)
    cfg = schema.config(which)
    with engine.begin() as connection:
        cfg.attributes["connection"] = connection
        command.check(cfg)
        command.downgrade(cfg, "base")
        command.upgrade(cfg, "head")


def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    """After a downgrade of the program the database says which way out there is."""
    path = tmp_path / "pingmon.db"
    Directory(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    db.close()

    with pytest.raises(
        schema.SchemaError, match=r"written by a newer pingmon \(schema from_the_future\); install that"
    ):
        Directory(path)


def test_a_failed_decision_leaves_no_trace(services: Services) -> None:
    """A transaction is whole or not at all."""

    def half() -> None:
        with services.directory.transaction() as tx:
            tx.audit(1, "test", "half", "done")
            tx.changed()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()

    with services.directory.transaction() as tx:
        assert tx.revision() == 0


def test_databases_are_private(config: Config) -> None:
    """Nobody but the server's user reads names, addresses and secrets, from the first start on."""
    open_services(config).close()
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in config.data_dir.iterdir()}

    assert modes["pingmon.db"] == modes["samples.db"] == modes["pepper"] == "0o600"
    assert oct(config.data_dir.stat().st_mode & 0o777) == "0o700"


@given(st.lists(st.integers(1, 2**31 - 1)))
def test_sets_come_back_as_they_were(ids: list[int]) -> None:
    """Packing and unpacking target ids loses nothing."""
    assert unpack_ids(pack_ids(ids)) == tuple(ids)


@settings(deadline=None, max_examples=30)
@given(columns=st.lists(st.lists(st.integers(-5, 60_000_000), min_size=1, max_size=40), min_size=1, max_size=8))
def test_rounds_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, columns: list[list[int]]) -> None:
    """What was written is what is read, also by another connection."""
    store = fresh_rounds(tmp_path_factory.mktemp("rounds"))
    rows = [row(i + 1, 1000 + i, values=tuple(column)) for i, column in enumerate(columns)]
    store.write(rows, {(1, "e"): len(rows)}, 5)

    assert list(store.since(0)) == rows
    assert store.cursors() == {(1, "e"): len(rows)}
    store.close()


def test_reading_the_last_hour_touches_no_older_round(tmp_path: Path) -> None:
    """A start must not read a day of rounds for the sake of an hour: each agent's part is one range of the key."""
    store = fresh_rounds(tmp_path)
    store.write([row(1, 1000), row(2, 9000)], {(1, "e"): 2}, 5)
    plans: list[str] = []
    real = sqlite3.connect

    def spy(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = real(*arguments, **options)
        db.set_trace_callback(plans.append)
        return db

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pingmon.store.rounds.sqlite3.connect", spy)
        assert [r.seq for r in store.since(5000)] == [2]

    query = next(statement for statement in plans if "FROM rounds" in statement)
    steps = [step[3] for step in real(tmp_path / "samples.db").execute(f"EXPLAIN QUERY PLAN {query}")]
    assert any("PRIMARY KEY (agent_no=? AND started_ms>? AND started_ms<?)" in step for step in steps), steps
    store.close()


def test_rounds_and_cursors_are_one_transaction(tmp_path: Path) -> None:
    """When the rows cannot be written, the cursor does not move either."""
    store = fresh_rounds(tmp_path)
    store.write([row(1, 1000)], {(1, "e"): 1}, 5)
    with sqlite3.connect(tmp_path / "samples.db") as db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON rounds BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    db.close()

    with pytest.raises(StoreError, match="disk is full"):
        store.write([row(2, 2000)], {(1, "e"): 2, (1, "f"): 1}, 6)

    assert store.cursors() == {(1, "e"): 1}
    store.close()
    again = SqliteRounds(tmp_path / "samples.db")
    assert again.cursors() == {(1, "e"): 1}
    again.close()


def test_old_rounds_go_in_batches_and_new_ones_stay(tmp_path: Path) -> None:
    """A day's deletion never holds the writer for long, and what is young enough is not touched."""
    store = fresh_rounds(tmp_path)
    count = DELETE_BATCH + 500
    store.write([row(i + 1, 1000 + i) for i in range(count)], {(1, "e"): count}, 9 * HOUR_MS)
    two = [row(1, 500, agent_no=2, epoch="f"), row(2, 9 * HOUR_MS, agent_no=2, epoch="f")]
    store.write(two, {(2, "f"): 2}, 9 * HOUR_MS)

    batches = [store.drop_before(8 * HOUR_MS) for _ in range(3)]

    assert batches == [DELETE_BATCH, 501, 0]
    assert [(r.agent_no, r.seq) for r in store.since(0)] == [(2, 2)]
    assert store.facts().oldest_ms == 9 * HOUR_MS
    store.close()


def test_a_cursor_outlives_its_last_round(tmp_path: Path) -> None:
    """An agent that was away for hours must not send what was dropped meanwhile a second time."""
    store = fresh_rounds(tmp_path)
    store.write([row(1, 1000)], {(1, "e"): 1}, 10 * HOUR_MS)
    store.write([], {(1, "e"): 1}, 10 * HOUR_MS)  # a report of nothing but duplicates
    store.drop_before(10 * HOUR_MS)

    assert store.drop_before(10 * HOUR_MS) == 0
    assert store.cursors() == {(1, "e"): 1}
    assert store.drop_before(12 * HOUR_MS + 1) == 0
    assert store.cursors() == {}
    store.write([row(1, 13 * HOUR_MS)], {(1, "e"): 1}, 13 * HOUR_MS)
    assert [r.seq for r in store.since(0)] == [1]
    store.close()


def test_retention_keeps_a_day(committing: Services, clock: FakeClock) -> None:
    """The scheduler's job drops what is older than `raw_hours` through the committer, and nothing younger."""
    now = clock.now_ms
    committing.rounds.write([row(1, now - 25 * HOUR_MS), row(2, now - 23 * HOUR_MS)], {(1, "e"): 2}, now)

    committing.retention.run()
    done = threading.Event()
    committing.ingest.between_commits(lambda: committing.ingest.between_commits(done.set))
    assert done.wait(5)

    assert [r.seq for r in committing.rounds.since(0)] == [2]


def test_a_link_makes_one_admin_whoever_comes_at_once(services: Services) -> None:
    """Two requests in the same moment, in threads: one of them gets the account."""
    for number in range(3):
        token, gate, made = services.accounts.create_link(1, "test"), threading.Barrier(2), []

        def redeem(email: str, token: str = token, gate: threading.Barrier = gate, made: list[Any] = made) -> None:
            gate.wait()
            made.append(services.accounts.redeem_link(token, email, "hash", 2))

        threads = [threading.Thread(target=redeem, args=(f"{word}{number}@example.net",)) for word in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(user is None for user in made) == [False, True]
    assert len(services.accounts.users()) == 3


def test_waiting_for_the_lock_lets_others_run(tmp_path: Path) -> None:
    """A decision waits for another program's transaction outside of C, then happens; what it read is still true."""
    directory = Directory(tmp_path / "pingmon.db")
    other = sqlite3.connect(tmp_path / "pingmon.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    decided: list[float] = []

    def decide() -> None:
        with directory.transaction() as tx:
            tx.changed()
        decided.append(time.monotonic() - began)

    thread = threading.Thread(target=decide)
    thread.start()
    with directory.reading() as tx:
        assert tx.revision() == 0
    time.sleep(0.3)
    assert decided == []
    other.execute("INSERT INTO directory_revision VALUES (1, 41)")
    other.execute("COMMIT")
    thread.join(5)

    assert decided[0] >= 0.3
    with directory.reading() as tx:
        assert tx.revision() == 42
    other.close()
    directory.close()


def test_a_lock_that_never_goes_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the decision fails with what to do, and nothing of it is left."""
    monkeypatch.setattr("pingmon.store.directory.LOCK_WAIT_S", 0.1)
    directory = Directory(tmp_path / "pingmon.db")
    other = sqlite3.connect(tmp_path / "pingmon.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with (
        pytest.raises(DirectoryError, match=r"database is locked.*nothing was changed; try again"),
        directory.transaction(),
    ):
        pass

    other.close()
    with directory.transaction() as tx:
        tx.changed()
    directory.close()
