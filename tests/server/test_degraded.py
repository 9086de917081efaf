"""A server whose disk is full or whose database is gone: it stays up, says so, acknowledges nothing and goes on alone.

The disk is a real one: a small tmpfs that the test fills to the last byte.
"""

from __future__ import annotations

import logging
import resource
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pingmon.app import Application
from pingmon.config import build
from pingmon.services.book import LAPSE_S, Book
from pingmon.services.bundle import Services
from pingmon.services.pressure import MAX_QUEUE_S, TELLING_SAMPLES, Pressure
from pingmon.store.directory import DirectoryError
from pingmon.store.ledger import LedgerFile
from pingmon_agent.wire.contract import ErrorCode
from tests.support.fresh import fresh_services

from .conftest import Approve, FakeClock, report

BLOCK = bytes(1 << 16)


class Disk:
    """A tmpfs of 4 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave not one page."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                self._until_full(lambda n=size: file.write(BLOCK[:n]))

    @staticmethod
    def _until_full(write: Callable[[], object]) -> None:
        try:
            while True:
                write()
        except OSError:
            return

    def make_room(self) -> None:
        """As an administrator would."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    yield Disk(place)
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def services(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    """On the small disk where the test asks for one."""
    place = request.getfixturevalue("disk").path if "disk" in request.fixturenames else tmp_path
    opened = fresh_services(build({"server": {"data_dir": str(place / "data")}}, {}), clock)
    yield opened
    opened.close()


def fill_with_targets(services: Services) -> None:
    """What is left in the directory's last pages."""
    for i in range(200):
        services.registry.add_target(f"more{i}", "192.0.2.9", "test")


def look(services: Services, clock: FakeClock) -> None:
    """What the scheduler does every few seconds, and the committer's answer to it."""
    clock.advance(5)
    done = threading.Event()
    services.look()
    services.ingest.between_commits(done.set)
    assert done.wait(10)


@pytest.mark.root
def test_a_full_disk_is_said_and_survived(
    disk: Disk,
    committing: Services,
    approve: Approve,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is acknowledged, pages and readiness say why, memory stays as it is, and room alone ends it."""
    caplog.set_level(logging.INFO, "pingmon")
    monkeypatch.setattr("pingmon.services.ingest.GROUP_S", 0)
    client = Application(committing.config, committing).flask.test_client()
    committing.registry.put_targets([(f"t{i}", f"192.0.2.{i}") for i in range(1, 251)], "test")
    agent = approve()
    column = list(range(250))
    assert committing.ingest.submit(agent.no, report(committing, agent, 1, column))["upto"] == 1
    disk.fill()
    with pytest.raises(DirectoryError):
        fill_with_targets(committing)

    seq, answer = 2, {"ok": True}
    while answer["ok"]:  # what is left in the last pages
        answer = committing.ingest.submit(agent.no, report(committing, agent, seq, *[column] * 3))
        seq += 3 * answer["ok"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        answer = committing.ingest.submit(agent.no, report(committing, agent, seq, *[column] * 40))
        assert (answer["ok"], answer["code"], answer["retry_after_s"]) == (False, ErrorCode.SERVER, 5)
    look(committing, clock)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000  # KiB; 12 MB of samples were sent
    assert committing.ingest.pressure.waiting_samples == 0
    assert committing.ingest.upto(agent.no, report(committing, agent, 1, column).epoch) == seq - 1
    ready = client.get("/-/ready")
    assert ready.status_code == 503
    assert "The samples database cannot be written (less than 1 MiB is free on its disk)" in ready.text
    assert "The directory database cannot be written" in ready.text
    assert "Make room on its disk" in str(committing.grid.layout_json()["trouble"])
    assert client.get("/-/healthy").status_code == client.get("/login").status_code == 200
    metrics = client.get("/metrics").text
    assert 'pingmon_server_storage_degraded{database="samples"} 1.0' in metrics
    assert 'pingmon_server_storage_degraded{database="directory"} 1.0' in metrics
    assert sum("nothing stored" in line for line in caplog.messages) == 1, "the log may be on the same disk"

    disk.make_room()
    look(committing, clock)

    assert client.get("/-/ready").status_code == 200
    assert committing.grid.layout_json()["trouble"] is None
    answer = committing.ingest.submit(agent.no, report(committing, agent, seq, column))
    assert answer == {"ok": True, "upto": seq, "dup": 0}
    assert committing.registry.add_target("last", "192.0.2.9", "test").name == "last"
    assert [r.seq for r in committing.rounds.since(0)] == list(range(1, seq + 1))


def test_a_database_that_was_taken_away_is_not_written_any_more(
    committing: Services, approve: Approve, clock: FakeClock
) -> None:
    """SQLite would go on in the deleted file, and all that was acknowledged would be gone."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()
    file = committing.config.data_dir / "samples.db"
    file.rename(file.with_name("elsewhere"))

    refused = committing.ingest.submit(agent.no, report(committing, agent, 1, [7]))
    sentence = committing.health.sentence
    file.with_name("elsewhere").rename(file)
    look(committing, clock)

    assert refused["code"] is ErrorCode.SERVER
    assert "moved or deleted" in str(sentence)
    assert committing.health.sentence is None
    assert committing.ingest.submit(agent.no, report(committing, agent, 1, [7]))["upto"] == 1


def test_a_directory_that_fails_once_is_well_again_after_the_next_change(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble ends with a change that went through, not with a transaction in which nothing was written."""
    monkeypatch.setattr("pingmon.store.directory.LOCK_WAIT_S", 0)
    other = sqlite3.connect(services.config.data_dir / "pingmon.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DirectoryError):
        services.registry.add_target("a", "192.0.2.10", "test")
    other.execute("ROLLBACK")
    other.close()

    with services.directory.transaction():
        pass
    still = services.directory.trouble
    services.directory.look()

    assert still == "database is locked"
    assert services.directory.trouble is None


def test_the_book_says_when_the_server_was_up(services: Services, clock: FakeClock) -> None:
    """Beats extend one span; a failure, a long stall and a new process each begin another."""
    file = LedgerFile(services.config.data_dir / "samples.db")

    def beat(book: Book) -> None:
        services.rounds.write([], {}, clock.now_ms, book.entry(clock.now_ms))

    start, book = clock.now_ms, Book(file, clock, services.clocks, 5)
    for _ in range(3):
        beat(book)
        clock.advance(6)
    book.failed()
    clock.advance(60)
    beat(book)
    clock.advance(LAPSE_S + 1)
    beat(book)
    clock.advance(5)
    beat(Book(file, clock, services.clocks, 5))

    spans = [((a - start) / 1000, (b - start) / 1000) for a, b in file.ups(0, clock.now_ms + 1)]
    assert spans == [(0, 12), (78, 78), (99, 99), (104, 104)]


def test_agents_wait_as_long_as_the_queue_takes() -> None:
    """What a commit cost decides how much may wait and for how long to stay away; tiny commits teach nothing."""
    pressure = Pressure()
    pressure.took(TELLING_SAMPLES - 1, 3600)
    assert pressure.retry_after_s(12_000) is None
    for _ in range(60):
        pressure.took(100_000, 1.0)  # 10 us a sample
    pressure.add(199_000)
    fits = pressure.retry_after_s(12_000)
    pressure.add(150_000)

    assert fits is None
    assert pressure.work_s > MAX_QUEUE_S
    assert pressure.retry_after_s(1) == 4
    pressure.remove(349_000)
    assert pressure.retry_after_s(1) is None
