"""A server that can be hurt and agents that are already approved at it: what every fault begins with.

with World(run, agents=20) as world:
    world.start()
    world.server.kill()
    verdict = world.verdict()
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pingmon.cli.children import Child
from pingmon.config import load
from pingmon.services.bundle import Services, open_services
from pingmon.services.clock import SystemClock
from pingmon_agent.config import Server as Address
from pingmon_agent.ring import Ring
from pingmon_agent.wire.contract import Handshake
from pingmon_agent.wire.framing import b64u
from tests.support.processes import Server, clean_environment, free_port, make_pki, wait_for, write_server

from .agents import VERSION, Fleet, SimAgent, Timeline, identity_of
from .journal import Journal
from .oracle import Key, Verdict, acked_too_early, judge, nothing_allowed

AGENTS, TARGETS = 20, 10  # with one round a second: load S of 200 samples a second
LEGACY_SECRET = "legacy-passphrase"
EXTRA = "[retention]\nraw_hours = 72\n"


@dataclass
class Run:
    """What a fault is given: an empty folder, chance, and whether a guard is to be missing this time."""

    home: Path
    seed: int
    quick: bool = False
    without: str = ""
    journal: Journal = field(default_factory=Journal)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def scale(self, whole: int, quick: int) -> int:
        """How often or how many: all of it, or what fits into `make test`."""
        return quick if self.quick else whole


class HurtServer(Server):
    """A `pingmon serve` that can be killed and started anew on the same port, with a plan of what is wrong in it."""

    plan: dict[str, Any]

    def start(self) -> None:
        """See Server."""
        plan = self.directory / "plan.json"
        plan.write_text(json.dumps(self.plan))
        argv = [sys.executable, "-m", "tests.faults.serve", str(plan), str(self.config)]
        if not self.plan:
            argv = [sys.executable, "-m", "pingmon", "serve", "--config", str(self.config)]
        child = self.child = Child("server", argv, self.directory / "server.log", clean_environment())
        anonymous = self.visitor()
        wait_for(lambda: not child.running or anonymous.is_up("/-/ready"), "the server to be ready", every_s=0.02)
        assert child.running, f"the server ended with {child.process.returncode}:\n{child.last_lines(20)}"

    def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        self.child.process.send_signal(signal.SIGKILL)
        self.child.process.wait()

    def metric(self, name: str) -> float:
        """A number of /metrics, with its labels as they are printed."""
        text = self.visitor().request("/metrics")[1]
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found, f"no {name} in /metrics"
        return float(found[1])

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        assert self.child is not None
        status = Path(f"/proc/{self.child.process.pid}/status").read_text()
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024

    @property
    def data(self) -> Path:
        """Where its databases lie."""
        return self.directory / "data"


class _Shifted(SystemClock):
    """The real clock, so many seconds off."""

    def __init__(self, offset_s: float) -> None:
        self._offset_ms = round(offset_s * 1000)

    def wall_ms(self) -> int:
        """See Clock."""
        return super().wall_ms() + self._offset_ms


def register(config: Path, names: list[str], targets: int, offset_s: float = 0.0, legacy: Sequence[str] = ()) -> str:
    """Targets and approved agents in the databases of a server that does not run; the pin of its identity.

    `offset_s`: where the clock stands for this, beside the real one. `legacy`: names of agents without a key, who show
    LEGACY_SECRET of this directory (see `legacy_secret`).
    """
    services = open_services(load(config), _Shifted(offset_s))
    try:
        for number in range(targets):
            services.registry.add_target(f"t{number}", f"192.0.2.{number + 1}", actor="faults")
        for name in names:
            key = b64u(identity_of(name).public)
            services.registry.preapprove(name, "127.0.0.1", key, "faults")
        if legacy:
            _register_legacy(services, config.with_name(LEGACY_SECRET), legacy)
    finally:
        services.close()
    return services.enrolment.pin


def _register_legacy(services: Services, file: Path, names: Sequence[str]) -> None:
    _, secret = services.enrolment.create_passphrase(
        "faults", legacy=True, max_uses=len(names), ttl_s=10 * 86_400, actor="faults"
    )
    file.write_text(secret)
    for name in names:
        hello = Handshake(passphrase=secret, hostname=name, ip_address="127.0.0.1", version=VERSION, epoch="0" * 16)
        no = services.enrolment.greet(hello, "127.0.0.1").agent_no
        services.registry.approve(services.registry.snapshot.agents[no].id, "faults")


class World:
    """One server, its agents and their side logs under `run.home`. Nothing runs before `start`."""

    def __init__(
        self,
        run: Run,
        *,
        agents: int = AGENTS,
        legacy: Sequence[str] = (),
        plan: dict[str, Any] | None = None,
        offset_s: float = 0.0,
        ring: Callable[..., Ring] = Ring,
        ring_of: Callable[[str], Callable[..., Ring]] | None = None,
        extra: str = EXTRA,
    ) -> None:
        self.run, self.journal = run, run.journal
        home = run.home / "server"
        home.mkdir(parents=True, exist_ok=True)
        self.server = HurtServer(home, free_port())
        self.server.plan = dict(plan or {})
        make_pki(home)
        write_server(self.server, interval_s=1, mesh=False, extra=extra)
        self.names = [f"agent-{n:02}" for n in range(agents)]
        self.pin = register(self.server.config, self.names, TARGETS, offset_s, legacy)
        self.timeline = Timeline(offset_s)
        rings = {name: ring_of(name) if ring_of is not None else ring for name in self.names}
        made = [SimAgent(name, self.timeline, run.home, self.pin, rings[name]) for name in self.names]
        self.fleet = Fleet(made, self.timeline, self.journal)

    def address(self, port: int | None = None) -> Address:
        """Where agents go: the server, or a proxy in front of it."""
        return Address(
            url=f"wss://127.0.0.1:{port or self.server.port}",
            ca_file=str(self.server.ca_file),
            identity=self.pin,
        )

    def legacy_secret(self) -> str:
        """What agents without a key show."""
        return self.server.config.with_name(LEGACY_SECRET).read_text()

    def start(self, port: int | None = None, settle_s: float = 2.0) -> None:
        """Server and agents up, all approved, and a moment of normal life."""
        self.start_server()
        self.fleet.start(self.address(port), self.run.seed)
        self.fleet.wait_back()
        time.sleep(settle_s)

    def start_server(self) -> float:
        """Start it and wait until it listens; the seconds that took."""
        began = time.monotonic()
        self.server.start()
        took = time.monotonic() - began
        self.journal.note(f"server ready after {took:.2f} s")
        return took

    def kill_server(self) -> int:
        """kill -9; rounds that were acknowledged though they are not in its database."""
        self.server.kill()
        self.journal.note("server killed")
        return acked_too_early(self.run.home, self.server.data)

    def stop_server(self) -> int:
        """Stop it gracefully; its exit code."""
        code = self.server.stop()
        self.journal.note(f"server stopped with {code}")
        return code

    def verdict(
        self,
        may_miss: Any = nothing_allowed,
        restamped: frozenset[str] = frozenset(),
        damaged: frozenset[Key] = frozenset(),
    ) -> Verdict:
        """What the oracle says about the databases as they are now."""
        return judge(self.run.home, self.server.data, may_miss, restamped, damaged)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.fleet.stop()
        if self.server.child is not None and self.server.child.running:
            self.server.stop()


__all__ = ["AGENTS", "TARGETS", "HurtServer", "Key", "Run", "World", "register"]
