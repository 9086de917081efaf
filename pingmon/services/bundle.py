"""All services wired together: what adapters and the command line get to work with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pingmon.config import Config
from pingmon.store.accounts import Accounts
from pingmon.store.directory import Directory
from pingmon.store.ledger import LedgerFile
from pingmon.store.rounds import SqliteRounds, StoredRound
from pingmon_agent.wire.seal import Identity

from .aim import Rules
from .book import Book
from .cells import WINDOW, Thresholds
from .challenge import Gate, Leaf, server_identity
from .clock import Clock, SystemClock
from .clocks import Clocks
from .compaction import Compaction
from .completeness import Completeness
from .enrolment import Enrolment
from .grid import Grid
from .health import Health
from .history import History
from .ingest import Ingest
from .legacy import LegacyIngest
from .passphrases import Pepper
from .past import Past
from .recent import KEEP_MS, Recent
from .refusals import Refusals
from .registry import Registry
from .retention import Retention
from .revocations import Revocations
from .rollups import RollUps

log = logging.getLogger("pingmon.registry")


@dataclass(frozen=True)
class Services:
    """Everything that decides or keeps. `close()` when done."""

    config: Config
    clock: Clock
    directory: Directory
    accounts: Accounts
    rounds: SqliteRounds
    registry: Registry
    refusals: Refusals
    enrolment: Enrolment
    recent: Recent
    grid: Grid
    ingest: Ingest
    legacy: LegacyIngest
    history: History
    rollups: RollUps
    past: Past
    compaction: Compaction
    retention: Retention
    health: Health
    clocks: Clocks
    completeness: Completeness

    def warm_up(self) -> int:
        """Fill the memory of the last hour from the database; returns how many rounds there were."""
        count, now, add = 0, self.clock.wall_ms(), remember(self.recent, self.clocks)
        # A cell remembers 12 rounds; working the whole hour in would take ten times as long for the same picture.
        picture_since = now - round(2 * WINDOW * self.config.probing.interval_s * 1000)
        for stored in self.rounds.since(now - KEEP_MS - self.clocks.most_behind_ms()):
            known = self.registry.target_set(stored.agent_no, stored.revision)
            if known is not None and stored.agent_no in self.registry.snapshot.agents:
                add(stored, known.target_ids)
                if self.clocks.shown_ms(stored) >= picture_since:
                    self.grid.add(stored, known.target_ids)
                count += 1
        self.recent.complete = True
        self.legacy.warm_up()
        return count

    def look(self) -> None:
        """Try both databases, so that a fault shows, and its end, while nobody has anything to write."""
        self.ingest.beat()
        self.directory.look()

    def close(self) -> None:
        """Let go of both databases."""
        self.rounds.close()
        self.directory.close()


def remember(recent: Recent, clocks: Clocks) -> Callable[[StoredRound, tuple[int, ...]], None]:
    """Into the memory that pages read, under the time that people are shown; what is stored keeps the agent's own."""

    def add(stored: StoredRound, target_ids: tuple[int, ...]) -> None:
        shown = clocks.shown_ms(stored)
        recent.add(stored if shown == stored.started_ms else replace(stored, started_ms=shown), target_ids)

    return add


def _identity(path: Path, registry: Registry) -> Identity:
    """The server's key; a new one for agents that know another is not made without a word."""
    missing = not path.exists()
    identity = server_identity(path)
    if missing and registry.snapshot.by_key:
        log.error(
            "%s was missing and is a new identity: %d agents know another and turn away until the old file is back "
            "or they get the new pin %s", path, len(registry.snapshot.by_key), identity.pin,
        )  # fmt: skip
    return identity


def open_services(config: Config, clock: Clock | None = None) -> Services:
    """Open (and if need be make) the databases under `data_dir`.

    Raises OSError, SchemaError, PepperError, StoreError with a reason.
    """
    clock = clock or SystemClock()
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Directory(config.data_dir / "pingmon.db")
    rounds = SqliteRounds(config.data_dir / "samples.db")
    probing = config.probing
    rules = Rules(config.targets, probing.interval_s)
    registry = Registry(directory, clock, rules, mesh=probing.mesh, interval_s=probing.interval_s)
    registry.revocations = Revocations(config.data_dir / "revocations.log")
    for hostname in registry.replay_revocations():
        log.warning("shut out again, as decided after the backup that was restored agent=%s", hostname)
    recent = Recent()
    limits = Thresholds(round(probing.warn_ms * 1000), round(probing.bad_ms * 1000))
    health = Health(clock, lambda: directory.trouble)
    ledger = LedgerFile(config.data_dir / "samples.db")
    clocks = Clocks(clock, probing.interval_s, ledger.offsets())
    gate = Gate(_identity(config.data_dir / "identity.key", registry), Leaf(Path(config.tls.certificate)), clock)
    grid = Grid(registry, recent, clock, limits, lambda: health.sentence, clocks.shown_ms)
    sinks = (remember(recent, clocks), grid.add)
    ingest = Ingest(rounds, registry, clock, sinks, Book(ledger, clock, clocks, probing.interval_s), clocks, health)
    return Services(
        config=config,
        clock=clock,
        directory=directory,
        accounts=Accounts(directory),
        rounds=rounds,
        registry=registry,
        refusals=Refusals(directory, clock),
        enrolment=Enrolment(registry, Pepper(config.data_dir / "pepper"), gate, clock),
        recent=recent,
        grid=grid,
        ingest=ingest,
        legacy=LegacyIngest(ingest, registry, recent, clock, clocks),
        history=History(registry, recent, rounds, clock, clocks, config.retention),
        past=Past(registry, rounds, clock, clocks, limits, config.retention.raw_hours),
        rollups=RollUps(rounds, registry, ingest, clock),
        compaction=Compaction(rounds, ingest, clock),
        retention=Retention(directory, rounds, ingest, recent, clock, config.retention),
        health=health,
        clocks=clocks,
        completeness=Completeness(ledger, registry, directory, clock),
    )
