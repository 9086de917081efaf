"""A server with a past and a present: agents, targets and an hour of rounds put into its databases before it starts,
and a separate program (feeder.py) that goes on reporting through the real socket, as legacy agents do.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pingmon import config as settings
from pingmon.adapters.web.credentials import hash_password
from pingmon.cli.children import Child
from pingmon.services import targets as rules
from pingmon.services.bundle import Services, open_services
from pingmon.store.ledger import Entry, LedgerFile
from pingmon.store.models import Agent, Target
from pingmon.store.rounds import StoredRound
from pingmon_agent.wire.contract import Handshake, Outcome
from tests.support.processes import Server, clean_environment, free_port, make_pki, write_server

INTERVAL_S = 2
VIEWER, PASSWORD = "viewer@example.net", "correct horse battery 7"
# the same tests in another mode: PINGMON_ASYNC_MODE=gevent pytest tests/web -m e2e
MODE = os.environ.get("PINGMON_ASYNC_MODE", "eventlet")
CITIES = ("fra-1", "ams-2", "lon-1", "nyc-3", "sin-1", "syd-2")
TARGETS = (
    ("router-berlin", "192.0.2.1"),
    ("dns-anycast", "192.0.2.53"),
    ("web-frontend", "198.51.100.80"),
    ("db-primary", "198.51.100.5"),
    ("edge-tokyo", "203.0.113.7"),
    ("vpn-gateway", "2001:db8::7"),
    ("ntp-1", "203.0.113.123"),
    ("old-name", "gone.invalid"),
)
# milliseconds per agent (row) and target (column); None = never answers, "lossy" rows are made by `value`
RTT_MS: tuple[tuple[float | None, ...], ...] = (
    (1.24, 4.81, 0.62, 7.35, 228.0, 12.4, 9.87, None),
    (8.93, 3.12, 9.44, None, 236.5, 15.2, 8.05, None),
    (14.7, 5.66, 15.1, 17.8, 241.2, 21.9, 13.3, None),
    (86.3, 6.02, 84.9, 91.4, 167.0, 95.6, 88.8, None),
    (158.0, 7.7, 161.0, 166.0, 71.2, 170.0, 163.0, None),
    (276.0, 9.15, 281.0, 288.0, 118.0, None, 284.0, None),
)
LOSSY = {(2, 3), (4, 6)}
UNRESOLVED = 7  # the column of "gone.invalid": the name resolves nowhere
ONE_LOST_IN = 8


def value(row: int, column: int, k: int) -> int:
    """Microseconds, or an outcome, of round `k`; the last digit never wanders, so that tests can name the number."""
    if column == UNRESOLVED:
        return Outcome.UNRESOLVED
    base = RTT_MS[row][column]
    if base is None or ((row, column) in LOSSY and k % ONE_LOST_IN == 3):
        return Outcome.TIMEOUT
    return round(base * 1000)


def history(row: int, column: int, k: int, chance: random.Random) -> int:
    """Like `value`, with the jitter that makes a chart worth looking at."""
    sample = value(row, column, k)
    if sample < 0:
        return sample
    spike = 1.6 if chance.random() < 0.01 else 1.0
    return round(sample * (1 + 0.08 * chance.random()) * spike)


class Stage:
    """A prepared server; `start` it, then `feed` it."""

    def __init__(self, directory: Path, interval_s: float = INTERVAL_S) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.server = Server(directory, free_port(), MODE)
        make_pki(directory)
        write_server(self.server, interval_s=interval_s, mesh=True, targets='owned_networks = "198.51.0.0/16"\n')
        self._agents: list[dict[str, object]] = []

    @contextmanager
    def prepared(self) -> Iterator[Services]:
        """The services on the databases, while the server is down."""
        services = open_services(settings.load(self.server.config, {}))
        try:
            yield services
        finally:
            services.close()

    def enrol(self, services: Services, hostname: str) -> int:
        """An approved legacy agent that comes from loopback; its number."""
        _, clear = services.enrolment.create_passphrase(
            f"site {hostname}", legacy=True, max_uses=1, ttl_s=86_400, actor="test"
        )
        hello = Handshake(passphrase=clear, hostname=hostname, ip_address="127.0.0.1", version="0.1.0")
        number = services.enrolment.greet(hello, "127.0.0.1").agent_no
        services.registry.approve(services.registry.snapshot.agents[number].id, "test")
        self._agents.append({"passphrase": clear, "hostname": hostname})
        return number

    @contextmanager
    def feeding(self) -> Iterator[Child]:
        """The feeder reports for all enrolled agents until the block ends."""
        plan = self.server.directory / "feed.json"
        rows = [
            agent
            | {"values": [[t, [value(row, c, k) for k in range(ONE_LOST_IN)]] for c, (t, _) in enumerate(TARGETS)]}
            for row, agent in enumerate(self._agents)
        ]
        plan.write_text(json.dumps({"url": self.server.url, "ca": str(self.server.ca_file), "agents": rows}))
        argv = [sys.executable, "-m", "tests.web.feeder", str(plan), str(INTERVAL_S)]
        child = Child("feeder", argv, self.server.directory / "feeder.log", clean_environment())
        try:
            yield child
        finally:
            child.stop()


def write_history(
    services: Services,
    numbers: list[int],
    rounds: int,
    interval_s: float,
    sample: Callable[[int, int, int], int],
    away: range = range(0),
) -> None:
    """`rounds` rounds of each agent up to now, but for `away`; `sample(row, column, k)` in microseconds or a code."""
    now = services.clock.wall_ms()
    for row, number in enumerate(numbers):
        columns = services.registry.snapshot.sets[number]
        stored = [
            StoredRound(
                agent_no=number, epoch="legacy", seq=k + 1, started_ms=now - round((rounds - k) * interval_s * 1000),
                revision=columns.revision, flags=0, received_ms=now,
                samples=array("i", [sample(row, column, k) for column in range(len(columns.target_ids))]),
            )
            for k in range(rounds)
            if k not in away
        ]  # fmt: skip
        services.rounds.write(stored, {(number, "legacy"): rounds}, now)


AWAY_S = (1_200, 900)  # from and to, before the start: no server ran, and the agents' rings did not reach as far


def write_ledger(services: Services, numbers: list[int]) -> None:
    """What the server would know, had it been there for 70 minutes but for `AWAY_S`, and had all else arrived."""
    now, interval_ms = services.clock.wall_ms(), INTERVAL_S * 1000
    begin, gone, back = (now - 1000 * seconds for seconds in (4_200, *AWAY_S))
    file = LedgerFile(services.config.data_dir / "samples.db")
    for up in ((begin, gone), (back, now)):
        slots = [(slot, False) for slot in range(up[0] // interval_ms, up[1] // interval_ms)]
        entry = Entry(interval_ms, up=up, slots=dict.fromkeys(numbers, slots))
        services.rounds.write([], {}, now, file.entry(entry))
    with sqlite3.connect(services.config.data_dir / "pingmon.db") as directory:
        directory.execute("UPDATE audit SET at_ms = at_ms - 4200000")
        directory.execute("UPDATE target_sets SET created_ms = created_ms - 4200000")


def small(directory: Path) -> Stage:
    """Six agents, eight targets, the last hour with jitter, loss, outages and a name that does not resolve."""
    stage = Stage(directory)
    chance = random.Random(7)
    with stage.prepared() as services:
        services.registry.put_targets(list(TARGETS), "test")
        services.accounts.create_user(VIEWER, hash_password(PASSWORD), ("viewer",), "test", services.clock.wall_ms())
        numbers = [stage.enrol(services, f"probe-{city}") for city in CITIES]
        away = range(700 - AWAY_S[0] // 5, 700 - AWAY_S[1] // 5)
        write_history(services, numbers, 700, 5, lambda row, column, k: history(row, column, k, chance), away)
        write_ledger(services, numbers)
    return stage


HOSTILE = (
    "<script>alert(1)</script>",
    '"onmouseover="alert(1)',
    "<img src=x onerror=alert(1)>",
    "{{7*7}}",
    "../../etc/passwd",
    "x" * 100,
    "\u202egnp.exe",
    "=cmd()",
    "javascript:alert(1)",
    "'-alert(1)-'",
    "${alert(1)}",
    "xn--pypal-4ve.example",
)


def large(directory: Path, size: int) -> Stage:
    """`size` x `size`, four rounds each; the first names are hostile. Put in directly: this is about the picture."""
    stage = Stage(directory, interval_s=600)
    chance = random.Random(11)
    with stage.prepared() as services:
        now = services.clock.wall_ms()
        with services.registry.change() as tx:
            for i in range(size):
                name = HOSTILE[i] if i < len(HOSTILE) else f"probe-{i:03d}"
                tx.add_agent(
                    Agent(
                        uid=f"00000000-0000-7000-8000-{i:012d}", hostname=name, state="approved",
                        ip_address="192.0.2.1",
                        observed_ip="192.0.2.1", version="0.1.0", legacy=True, registered_ms=now, seen_ms=now,
                        decided_ms=now, decided_by="test",
                    )
                )  # fmt: skip
                label = HOSTILE[i] if i < len(HOSTILE) else f"target-{i:03d}"
                tx.add_target(Target(name=label, address=f"198.51.{100 + i // 250}.{i % 250 + 1}", created_ms=now))
            tx.flush()
            rules.renew_sets(tx, now)
        numbers = [agent.no for agent in services.registry.agents()]
        rows = [
            [chance.choice((3, 9, 14, 22, 38, 70, 240)) * 1000 + chance.randrange(900) for _ in range(size)]
            for _ in range(size)
        ]

        def sample(row: int, column: int, k: int) -> int:
            return Outcome.TIMEOUT if (row * 7 + column * 13) % 97 == 0 else rows[row][column]

        write_history(services, numbers, 4, 20, sample)
    return stage
