"""Services on real databases in a temporary directory, with a clock that stands still until a test moves it."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pingmon.config import Config, build
from pingmon.services.bundle import Services, open_services
from pingmon.services.views import AgentView
from pingmon_agent.wire.contract import Handshake, Report, Round
from tests.support.fresh import fresh_services, lay

EPOCH = "00c0ffee00c0ffee"


@dataclass
class FakeClock:
    """Time as the test says."""

    now_ms: int = 1_800_000_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return build({"server": {"data_dir": str(tmp_path / "data")}}, {})


@pytest.fixture
def services(config: Config, clock: FakeClock) -> Iterator[Services]:
    opened = fresh_services(config, clock)
    yield opened
    opened.close()


@pytest.fixture
def committing(services: Services) -> Iterator[Services]:
    """Services whose committer runs."""
    thread = threading.Thread(target=services.ingest.run)
    thread.start()
    yield services
    services.ingest.stop()
    thread.join(5)
    assert not thread.is_alive()


Open = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Services under some [targets] and [probing], on the same database each time."""
    lay(tmp_path)

    @contextmanager
    def start(interval_s: float = 5.0, mesh: bool = False, **limits: object) -> Iterator[Services]:
        tables = {"server": {"data_dir": str(tmp_path)}, "targets": limits,
                  "probing": {"interval_s": interval_s, "mesh": mesh}}  # fmt: skip
        services = open_services(build(tables, {}), FakeClock())
        try:
            yield services
        finally:
            services.close()

    return start


def passphrase(services: Services, **changes: int) -> str:
    options = {"max_uses": 10, "ttl_s": 3600, **changes}
    return services.enrolment.create_passphrase("tests", legacy=True, actor="test", **options)[1]


def hello(secret: str, hostname: str = "probe-1", ip: str = "192.0.2.1", version: str = "1.0") -> Handshake:
    return Handshake(passphrase=secret, hostname=hostname, ip_address=ip, version=version, epoch=EPOCH)


Approve = Callable[..., AgentView]


@pytest.fixture
def approve(services: Services) -> Approve:
    """Make an agent known and approve it."""
    secret = passphrase(services)

    def make(hostname: str = "probe-1", ip: str = "192.0.2.1") -> AgentView:
        no = services.enrolment.greet(hello(secret, hostname, ip), ip).agent_no
        return services.registry.approve(services.registry.snapshot.agents[no].id, "test")

    return make


def report(services: Services, agent: AgentView, first: int, *columns: list[int], epoch: str = EPOCH) -> Report:
    """Rounds from seq `first` on, 5 s apart, the last one now, under the agent's current set."""
    revision = services.registry.snapshot.sets[agent.no].revision
    now = services.clock.wall_ms()
    rounds = tuple(
        Round(
            epoch=epoch,
            seq=first + i,
            started_ms=now - (len(columns) - 1 - i) * 5000,
            revision=revision,
            samples=array("i", column),
        )
        for i, column in enumerate(columns)
    )
    return Report(epoch=epoch, rounds=rounds)
