"""revocations.log: decisions against agents outlive a restored database (42), and nothing is committed after them."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from pingmon.config import Config
from pingmon.services.bundle import Services, open_services
from pingmon_agent.wire.contract import State

from .conftest import Approve, FakeClock, report


@pytest.fixture
def backup(config: Config, services: Services, approve: Approve, tmp_path: Path, clock: FakeClock) -> Path:
    """A copy of the directory in which `one` is approved; time has gone on since."""
    approve("one")
    copy = tmp_path / "copy"
    copy.mkdir()
    services.directory.engine.dispose()
    for file in config.data_dir.glob("pingmon.db*"):
        shutil.copy(file, copy)
    clock.advance(60)
    return copy


def restored(config: Config, services: Services, backup: Path, clock: FakeClock) -> Services:
    services.close()
    for file in config.data_dir.glob("pingmon.db*"):
        file.unlink()
    for file in backup.iterdir():
        shutil.copy(file, config.data_dir)
    return open_services(config, clock)


@pytest.mark.parametrize(
    ("decide", "states"),
    [
        (["reject"], [State.BLACKLISTED]),
        (["hold"], [State.HOLD]),
        (["delete"], []),
        (["reject", "approve"], [State.APPROVED]),
        (["hold", "release"], [State.APPROVED]),
    ],
)
def test_42_a_restored_database_does_not_let_the_revoked_back_in(
    config: Config, services: Services, backup: Path, clock: FakeClock, decide: list[str], states: list[State]
) -> None:
    """The last decision counts, also where the database is older; what was taken back stays taken back."""
    for verb in decide:
        getattr(services.registry, verb)("one", "test")
        clock.advance(1)

    again = restored(config, services, backup, clock)

    assert [a.state for a in again.registry.agents()] == states
    again.close()


def test_42_a_later_approval_is_not_undone_by_the_log(config: Config, services: Services, approve: Approve) -> None:
    """A decision in the database that is newer than the log's holds, even if its own line was lost in a crash."""
    approve("one")
    services.registry.reject("one", "test")
    services.clock.advance(5)  # type: ignore[attr-defined]
    log = config.data_dir / "revocations.log"
    kept = log.read_text()
    services.registry.approve("one", "test")
    log.write_text(kept)

    assert services.registry.replay_revocations() == []
    assert services.registry.agent("one").state is State.APPROVED


def test_42_a_damaged_line_costs_only_itself(
    config: Config, services: Services, backup: Path, clock: FakeClock
) -> None:
    """A torn line is named in the log, the others are followed."""
    services.registry.reject("one", "test")
    log = config.data_dir / "revocations.log"
    log.write_text('{"at_ms": 1, "agent\n[]\n' + log.read_text() + '{"at')

    again = restored(config, services, backup, clock)

    assert [a.state for a in again.registry.agents()] == [State.BLACKLISTED]
    again.close()


@pytest.mark.parametrize("verb", ["reject", "hold", "delete"])
def test_41_a_report_that_waits_for_its_commit_is_dropped(services: Services, approve: Approve, verb: str) -> None:
    """Checked before the decision, committed after it: not stored, and the agent is told to shake hands again."""
    agent = approve()
    answers: list[object] = []
    waiting = threading.Thread(
        target=lambda: answers.append(services.ingest.submit(agent.no, report(services, agent, 1, [])))
    )
    waiting.start()
    while not services.ingest._queue:
        time.sleep(0.001)
    getattr(services.registry, verb)("probe-1", "test")

    committer = threading.Thread(target=services.ingest.run)
    committer.start()
    waiting.join(5)
    services.ingest.stop()
    committer.join(5)

    assert [(a["ok"], a["code"]) for a in answers] == [(False, "E_STATE")]  # type: ignore[index]
    assert services.rounds.cursors() == {}
