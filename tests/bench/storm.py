"""`make bench-fleet-storm`: a fleet that comes back after its server was stopped, and after it was killed.

The server is the program itself over TLS on the same port; the agents of two processes log in by key and keep the
agent's own rule of coming back. The worse of the two ends is the result. Must not know: how agents come back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pingmon.cli.children import die_with
from pingmon.config import load
from pingmon.services.approval import enter
from pingmon.services.bundle import open_services
from pingmon.services.ids import new_uid
from pingmon.store.models import Agent
from pingmon_agent.wire.contract import State
from pingmon_agent.wire.seal import fingerprint
from tests.faults.agents import VERSION, identity_of
from tests.faults.oracle import Verdict, judge
from tests.faults.world import HurtServer, register
from tests.support.processes import free_port, make_pki, write_server

from .facts import cpu_ns, machine, memory_mib, percentile, publish
from .returning import Plan

TARGETS = 4
PROCESSES = 2
BYSTANDERS = 5  # of each process
PATIENCE_S = 240.0
HEALTHY_S = 65.0  # so long an agent must have been well for its next pause to be a first one again
FULL = {"agents": 1000, "calm_s": HEALTHY_S}
QUICK = {"agents": 100, "calm_s": 6.0}


class Part:
    """One process of agents."""

    def __init__(self, plan: Plan, log: Path) -> None:
        with log.open("wb") as complaints:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.returning", json.dumps(asdict(plan))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - as in pingmon.cli.children
            )  # fmt: skip
        self.pid, self._log = self._child.pid, log

    def say(self, command: str) -> None:
        """One command; see returning.py."""
        assert self._child.stdin is not None
        print(command, file=self._child.stdin, flush=True)

    def hear(self) -> str:
        """Its next line. AssertionError if it ends or says nothing for too long, with what it complained of."""
        assert self._child.stdout is not None
        guard = threading.Timer(PATIENCE_S, self._child.kill)
        guard.start()
        line = self._child.stdout.readline()
        guard.cancel()
        assert line, f"the agents ended or were not back within {PATIENCE_S:g} s: {self._log.read_text()[-2000:]}"
        return line

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()


@dataclass(frozen=True)
class Mark:
    """A moment, and the processor time used until then, in seconds."""

    at: float
    server_s: float
    agents_s: float

    @classmethod
    def now(cls, server: HurtServer, parts: Sequence[Part]) -> Mark:
        """This moment."""
        assert server.child is not None
        agents = sum(cpu_ns(part.pid) for part in parts) / 1e9
        return cls(time.monotonic(), cpu_ns(server.child.process.pid) / 1e9, agents)


@dataclass(frozen=True)
class Storm:
    """One end of the server and the return of everybody; `calm` to `end` is the time of peace before it."""

    name: str
    calm: Mark
    end: Mark
    ready: Mark
    back: Mark


def storm(name: str, server: HurtServer, parts: Sequence[Part], calm_s: float) -> Storm:
    """Peace, the end of the server by `stop` or `kill`, its start at once, and everybody back."""
    time.sleep(calm_s / 2)
    calm = Mark.now(server, parts)
    time.sleep(calm_s / 2)
    end = Mark.now(server, parts)
    {"stop": server.stop, "kill": server.kill}[name]()
    gone = time.monotonic()
    server.start()
    ready = Mark.now(server, parts)
    wait_back(parts, gone)
    return Storm(name, calm, end, ready, Mark.now(server, parts))


def wait_back(parts: Sequence[Part], since: float) -> None:
    """Until every agent was let in after that moment."""
    for part in parts:
        part.say(f"back {since}")
    for part in parts:
        assert part.hear() == "back\n"


@dataclass(frozen=True)
class Heard:
    """What all processes told, in order of time."""

    greeted: list[float]
    back: list[float]
    waits: list[list[float]]
    bystanders: list[list[float]]
    lags: list[list[float]]
    ends: list[dict[str, int]]

    @classmethod
    def of(cls, told: Sequence[dict[str, Any]]) -> Heard:
        """Of the lines that `drain` was answered with."""
        joined = {name: sorted(x for t in told for x in t[name]) for name in told[0] if name != "ends"}
        return cls(**joined, ends=[t["ends"] for t in told])


def within(events: Sequence[list[float]], begin: float, end: float) -> list[float]:
    """The durations of those that ended between these two moments."""
    return [took for at, took in events if begin <= at < end]


def worst_second(moments: Sequence[float]) -> int:
    """The most that fall into any one second; `moments` in order."""
    return max((place + 1 - bisect_right(moments, at - 1.0) for place, at in enumerate(moments)), default=0)


def figures(found: Storm, heard: Heard, agents: int) -> dict[str, float]:
    """What is published of one storm; its time begins where the server is told to end."""
    returns = [at - found.end.at for at in heard.back if found.end.at < at <= found.back.at][-agents:]
    acks = within(heard.waits, found.ready.at, found.back.at)
    near = within(heard.bystanders, found.ready.at, found.back.at)
    return {
        "worst_second": worst_second([at for at in heard.greeted if found.end.at < at <= found.back.at]),
        "p95_back_s": percentile(returns, 0.95),
        "all_back_s": max(returns),
        **costs(found, heard, sum(at > found.ready.at - found.end.at for at in returns), len(acks) + len(near)),
        "ack_p99_s": percentile(acks + near, 0.99),
        "bystander_ack_p99_s": percentile(near, 0.99),
        "ack_max_s": max(acks + near),
        "listening_s": found.ready.at - found.end.at,
    }


def costs(found: Storm, heard: Heard, rejoins: int, reports: int) -> dict[str, float]:
    """Processor time of the server from its start being over until all are back, and how busy the agents were.

    What reports cost in peace, with all that goes on by itself, is taken off for each report of that time.
    """
    span = found.back.at - found.ready.at
    before = within(heard.waits + heard.bystanders, found.calm.at, found.end.at)
    per_report = (found.end.server_s - found.calm.server_s) / len(before)
    server = found.back.server_s - found.ready.server_s
    return {
        "cpu_ms_per_rejoin": (server - per_report * reports) / rejoins * 1000,
        "cpu_ms_per_rejoin_and_reports": server / rejoins * 1000,
        "cpu_ms_per_report": per_report * 1000,
        "server_cores": server / span,
        "generator_cores": (found.back.agents_s - found.ready.agents_s) / span,
        "generator_lag_max_s": max(within(heard.lags, found.ready.at, found.back.at), default=0.0),
    }


def prepared(folder: Path, names: list[str]) -> tuple[HurtServer, str]:
    """A server that was never started, at which these agents are approved by key; the pin of its identity."""
    home = folder / "server"
    home.mkdir()
    server = HurtServer(home, free_port())
    server.plan = {}
    make_pki(home)
    write_server(server, interval_s=5, mesh=False)
    pin = register(server.config, [], TARGETS)
    approve(server.config, names)
    return server, pin


def approve(config: Path, names: list[str]) -> None:
    """All of these by the keys they will show, in one decision: as many decisions would take a minute."""
    services = open_services(load(config))
    now = services.clock.wall_ms()
    try:
        with services.registry.change() as tx:
            for name in names:
                key = identity_of(name)
                row = Agent(
                    uid=new_uid(now), hostname=name, ip_address="127.0.0.1", observed_ip="127.0.0.1",
                    state=State.PENDING, version=VERSION, legacy=False, registered_ms=now, seen_ms=now,
                    public_key=key.public, key_fingerprint=fingerprint(key.public),
                )  # fmt: skip
                enter(tx, tx.add_agent(row), State.APPROVED, None, now)
    finally:
        services.close()


def measure(folder: Path, agents: int, calm_s: float, seed: int, ends: Sequence[str]) -> None:
    """The RESULT line."""
    names = [f"agent-{number:04}" for number in range(agents)]
    details: dict[str, Any] = {"machine": machine(), "agents": agents, "targets": TARGETS, "seed": seed}
    server, pin = prepared(folder, names)
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        parts = []
        for number in range(PROCESSES):
            plan = Plan(names[number::PROCESSES], str(folder), server.url.replace("https", "wss"), str(server.ca_file),
                        pin, seed + number * agents, BYSTANDERS, max(2.0, agents / 100))  # fmt: skip
            parts.append(stack.enter_context(Part(plan, folder / f"agents-{number}.log")))
        wait_back(parts, 0.0)
        print(f"all {agents} are there", flush=True)
        storms = [storm(name, server, parts, calm_s) for name in ends]
        heard = drained(parts)
        assert server.child is not None
        details["server_rss_mib"] = memory_mib(server.child.process.pid)["rss_mib"]
    account = judge(folder, server.data)
    report(storms, heard, account, agents, details)


def drained(parts: Sequence[Part]) -> Heard:
    """All measure no more and the server has everything."""
    for part in parts:
        part.say("drain")
    return Heard.of([json.loads(part.hear()) for part in parts])


def report(storms: Sequence[Storm], heard: Heard, account: Verdict, agents: int, details: dict[str, Any]) -> None:
    """Both storms in words, and the worse of each figure."""
    both = {found.name: figures(found, heard, agents) for found in storms}
    for name, keys in both.items():
        print(f"{name}: " + " ".join(f"{key}={value:.3g}" for key, value in keys.items()), flush=True)
    print(f"{account.sentence()}; connections ended by {heard.ends}", flush=True)
    worse = {key: max(keys[key] for keys in both.values()) for key in both[storms[0].name]}
    counts = {"agents": agents, "lost": account.lost, "dup": account.dup, "altered": account.altered}
    publish("storm", worse | counts, details | both | {"ends": heard.ends, "account": asdict(account)})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-fleet-storm", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 agents, within a minute")
    parser.add_argument("--agents", type=int, help="that many instead")
    parser.add_argument("--seed", type=int, default=42, help="of the chance in the agents' pauses")
    parser.add_argument("--ends", nargs="+", default=["stop", "kill"], choices=["stop", "kill"], help="of the server")
    args = parser.parse_args()
    sizes = QUICK if args.quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measure(Path(folder), args.agents or int(sizes["agents"]), sizes["calm_s"], args.seed, args.ends)


if __name__ == "__main__":
    main()
