"""All services wired together: what adapters and the command line get to work with."""

from __future__ import annotations

from dataclasses import dataclass

from pingmon.config import Config
from pingmon.store.accounts import Accounts
from pingmon.store.directory import Directory
from pingmon.store.rounds import SqliteRounds

from .cells import WINDOW, Thresholds
from .clock import Clock, SystemClock
from .compaction import Compaction
from .enrolment import Enrolment
from .grid import Grid
from .history import History
from .ingest import Ingest
from .legacy import LegacyIngest
from .passphrases import Pepper
from .recent import KEEP_MS, Recent
from .registry import Registry
from .retention import Retention
from .rollups import RollUps


@dataclass(frozen=True)
class Services:
    """Everything that decides or keeps. `close()` when done."""

    config: Config
    clock: Clock
    directory: Directory
    accounts: Accounts
    rounds: SqliteRounds
    registry: Registry
    enrolment: Enrolment
    recent: Recent
    grid: Grid
    ingest: Ingest
    legacy: LegacyIngest
    history: History
    rollups: RollUps
    compaction: Compaction
    retention: Retention

    def warm_up(self) -> int:
        """Fill the memory of the last hour from the database; returns how many rounds there were."""
        count, now = 0, self.clock.wall_ms()
        # A cell remembers 12 rounds; working the whole hour in would take ten times as long for the same picture.
        picture_since = now - round(2 * WINDOW * self.config.probing.interval_s * 1000)
        for stored in self.rounds.since(now - KEEP_MS):
            known = self.registry.target_set(stored.agent_no, stored.revision)
            if known is not None and stored.agent_no in self.registry.snapshot.agents:
                self.recent.add(stored, known.target_ids)
                if stored.started_ms >= picture_since:
                    self.grid.add(stored, known.target_ids)
                count += 1
        self.legacy.warm_up()
        return count

    def close(self) -> None:
        """Let go of both databases."""
        self.rounds.close()
        self.directory.close()


def open_services(config: Config, clock: Clock | None = None) -> Services:
    """Open (and if need be make) the databases under `data_dir`.

    Raises OSError, SchemaError, PepperError with a reason.
    """
    clock = clock or SystemClock()
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Directory(config.data_dir / "pingmon.db")
    rounds = SqliteRounds(config.data_dir / "samples.db")
    probing = config.probing
    registry = Registry(directory, clock, mesh=probing.mesh, interval_s=probing.interval_s)
    recent = Recent()
    limits = Thresholds(round(probing.warn_ms * 1000), round(probing.bad_ms * 1000))
    grid = Grid(registry, recent, clock, limits)
    ingest = Ingest(rounds, registry, clock, (recent.add, grid.add))
    return Services(
        config=config,
        clock=clock,
        directory=directory,
        accounts=Accounts(directory),
        rounds=rounds,
        registry=registry,
        enrolment=Enrolment(registry, Pepper(config.data_dir / "pepper"), clock),
        recent=recent,
        grid=grid,
        ingest=ingest,
        legacy=LegacyIngest(ingest, registry, recent, clock),
        history=History(registry, recent, clock),
        rollups=RollUps(rounds, registry, ingest, clock),
        compaction=Compaction(rounds, ingest, clock),
        retention=Retention(directory, rounds, ingest, recent, clock, config.retention),
    )
