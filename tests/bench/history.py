"""`make bench-history`: reading a day of many agents, while all of them go on reporting at full rate.

Single pairs are read by a second program on the store, as `pingmon history` does, and over HTTPS from the server that
takes the reports, in turn with Prometheus; the whole grid at an instant over HTTPS. Must not know: how any store works.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pingmon import config as settings
from pingmon.services.bundle import Services, open_services
from pingmon.services.history import History
from pingmon_agent.wire.contract import Handshake
from tests.support.processes import Server, free_port, make_pki, wait_for, write_server

from .facts import machine, percentile, publish, spread, version_of
from .feed import Feed
from .ingest import EPOCH, Reporter
from .past import write_day
from .peers import find
from .prometheus import Prometheus
from .ranges import BETWEEN_S, Question, figures, in_turn, kept_open, same_day, server_cpu_ns, ways_to


def prepared(server: Server, agents: int, targets: int, passphrase: list[str]) -> dict[int, int]:
    """Targets and approved agents in the databases of a server that is not running: {agent number: revision}."""
    with _services(server) as services:
        rows = [(f"target-{t}", f"198.18.{t // 250}.{t % 250 + 1}") for t in range(targets)]
        services.registry.put_targets(rows, "bench")
        _, clear = services.enrolment.create_passphrase(
            "bench", legacy=True, max_uses=agents, ttl_s=86_400, actor="bench"
        )
        passphrase.append(clear)
        numbers = []
        for number in range(agents):
            hello = Handshake(
                passphrase=clear, hostname=f"probe-{number}", ip_address="127.0.0.1", version="1", epoch=EPOCH
            )
            numbers.append(services.enrolment.greet(hello, "127.0.0.1").agent_no)
            services.registry.approve(services.registry.snapshot.agents[numbers[-1]].id, "bench")
        return {number: services.registry.snapshot.sets[number].revision for number in numbers}


@contextmanager
def _services(server: Server) -> Iterator[Services]:
    services = open_services(settings.load(server.config, {}))
    try:
        yield services
    finally:
        services.close()


@contextmanager
def reporting(server: Server, agents: int, targets: int, passphrase: str) -> Iterator[None]:
    """All agents send a round every five seconds, from a process of their own: they must not slow down who reads."""
    argv = [sys.executable, "-m", "tests.bench.history", "--report", str(server.directory), str(server.port)]
    child = subprocess.Popen(
        [*argv, passphrase, "--agents", str(agents), "--targets", str(targets)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "reporting\n"
        try:
            yield
        finally:
            child.stdin.close()


def report(server: Server, agents: int, targets: int, passphrase: str) -> None:
    """The process of the agents, until its standard input ends; a round is spread over the five seconds."""
    feed = Feed(agents, targets, 8, time.time_ns() // 1_000_000)
    feed.make()
    reporters = [Reporter(server, number, feed, passphrase) for number in range(agents)]
    for reporter in reporters:
        reporter.take_targets()
    print("reporting", flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    began, number = time.monotonic(), 0
    while not stop.is_set():
        for place, reporter in enumerate(reporters):
            if stop.wait(max(0.0, began + number * 5 + 5 * place / agents - time.monotonic())):
                break
            reporter.send_now(number)
        number += 1
    for reporter in reporters:
        reporter.close()


def timed(read: Callable[[], object], reads: int) -> list[float]:
    """Milliseconds of each."""
    found = []
    for _ in range(reads):
        began = time.perf_counter()
        read()
        found.append((time.perf_counter() - began) * 1000)
        time.sleep(BETWEEN_S)
    return found


class Pulse:
    """Asks the server for a sign of life twenty times a second, and keeps how long each took, in ms."""

    def __init__(self, server: Server) -> None:
        self.waits: list[float] = []
        self._visitor, self._stop = server.visitor(), threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(0.05):
            self.waits += timed(lambda: self._visitor.is_up("/-/healthy"), 1)

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(folder: Path, agents: int, targets: int, reads_each: int) -> None:
    """All RESULT lines."""
    server = Server(folder, free_port())
    make_pki(folder)
    write_server(server, interval_s=5, mesh=False)
    passphrase: list[str] = []
    numbers = prepared(server, agents, targets, passphrase)
    now = time.time_ns() // 1_000_000
    made_s = write_day(folder / "data" / "samples.db", numbers, targets, now)
    size = (folder / "data" / "samples.db").stat().st_size
    print(f"a day of {agents} x {targets}: {size / 2**20:,.0f} MiB, made in {made_s:.0f} s", flush=True)
    details = {"machine": machine(), "agents": agents, "targets": targets, "made_s": made_s, "mib": size / 2**20}
    if program := find("prometheus"):
        details["prometheus"] = {"version": version_of(program, "--version"), "series": targets}
    with same_day(folder / "prometheus", targets, now) as peer:
        server.start()
        print(f"read through once, so that no read waits for the disk: {_warmed(folder):.0f} s", flush=True)
        with reporting(server, agents, targets, passphrase[0]):
            read(server, peer, Store(agents, targets, now), reads_each, details)
        server.stop()


def _warmed(folder: Path) -> float:
    """Bring the samples into the kernel's cache, as Prometheus' smaller day is all the time; seconds it took."""
    began = time.monotonic()
    with (folder / "data" / "samples.db").open("rb") as file:
        while file.read(1 << 22):
            pass
    return time.monotonic() - began


@dataclass(frozen=True)
class Store:
    """What was made: names of agents and targets count from 0, the day ends at `now_ms`."""

    agents: int
    targets: int
    now_ms: int

    def questions(self, history: History, hours: int, count: int) -> Iterator[Question]:
        """Whole steps, lest the first and the last hold other samples here and there; no more than 23 h."""
        chance, end = random.Random(hours), self.now_ms - self.now_ms % 120_000
        for _ in range(count):
            agent, target = f"probe-{chance.randrange(self.agents)}", f"target-{chance.randrange(self.targets)}"
            begin = end - chance.randrange(hours, 24) * 3_600_000
            span = history.span(str(begin / 1000), str(begin / 1000 + hours * 3600), None)
            yield Question(agent, target, span)


def read(server: Server, peer: Prometheus | None, store: Store, reads_each: int, details: dict[str, Any]) -> None:
    """All that is read while agents report, and how long others wait for the server meanwhile."""
    with Pulse(server) as pulse, _services(server) as services:
        before, began = server_cpu_ns(server), time.perf_counter_ns()
        wait_for(lambda: len(pulse.waits) > 40, "the server to come to rest")
        idle = max(pulse.waits)
        cores = (server_cpu_ns(server) - before) / (time.perf_counter_ns() - began)
        for name, hours in (("pair-1h", 1), ("pair-24h", 23)):
            ways = ways_to(server, services.history, peer, hours)
            in_turn(ways, store.questions(services.history, hours, reads_each))
            keys, spreads = figures(ways)
            for way, found in spreads.items():
                print(f"{name} {way}: {found}", flush=True)
            publish(name, keys, details | {"spreads": spreads})
        keys, found = _pictures(server, max(10, reads_each // 4))
    publish("grid-at", keys, details | {"ms": found})
    publish("hub", {"stall_max_ms": max(pulse.waits), "stall_idle_max_ms": idle, "idle_cores": cores}, details)


def _pictures(server: Server, reads_each: int) -> tuple[dict[str, float], dict[str, object]]:
    """The grid at random instants of the day over HTTPS: packed, as the page asks for it, and as JSON, in turn."""
    chance, fetch = random.Random(1), kept_open(server)
    waits: dict[str, list[float]] = {"application/octet-stream": [], "application/json": []}
    for _ in range(reads_each):
        path = f"/api/v1/grid?at=-{chance.randrange(5, 1430)}m"
        for accept in waits:
            waits[accept] += timed(partial(fetch, path, accept), 1)
    keys: dict[str, float] = {}
    for prefix, found in zip(("", "json_"), waits.values(), strict=True):
        keys |= {f"{prefix}p50_ms": percentile(found, 0.5), f"{prefix}p99_ms": percentile(found, 0.99)}
    return keys, {accept: spread(found) for accept, found in waits.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-history", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute, with fewer agents and targets")
    parser.add_argument("--agents", type=int)
    parser.add_argument("--targets", type=int)
    parser.add_argument("--reads", type=int, help="of each kind and way (200, --quick: 60); of the grid a tenth")
    parser.add_argument("--report", nargs=3, metavar=("DIRECTORY", "PORT", "PASSPHRASE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report:
        directory, port, passphrase = args.report
        return report(Server(Path(directory), int(port)), args.agents, args.targets, passphrase)
    agents, targets = (4, 100) if args.quick else (100, 1000)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        reads = args.reads or (60 if args.quick else 200)
        return measure(Path(folder), args.agents or agents, args.targets or targets, reads)


if __name__ == "__main__":
    main()
