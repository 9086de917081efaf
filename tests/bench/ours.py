"""The whole agent under measurement: its process, and the stand-in server that its results arrive at.

Must not know: the engine. What is measured is `pingmon-agent run` as a user starts it, metrics page and TLS included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pingmon_agent.wire.contract import MAX_TARGETS
from tests.agent.certificates import Authority
from tests.support.doorkeeper import PASSPHRASE

from .facts import cpu_ns, memory_mib
from .world import World, end

_START_S = 60.0
_SETTLE_S = 0.3  # after a round has arrived at the server, its acknowledgement is still on the way


@dataclass
class Measured:
    """What one program used: ms of processor per round, memory, probes sent and those without an answer."""

    cpu_ms: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    probes: int = 0
    lost: int = 0
    disturbed: int = 0


class OurAgent:
    """A running agent with `addresses` as targets. `rounds()` is what the server has got so far."""

    def __init__(self, world: World, folder: Path, addresses: list[str], interval_s: float = 5.0) -> None:
        self._interval_s, self._folder = interval_s, folder
        self._reader: TextIO | None = None
        self._read: list[dict[str, Any]] = []
        self._partial = ""
        self._rounds = folder / "rounds.jsonl"
        (folder / "targets.json").write_text(json.dumps([addresses, interval_s]))
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        authority = Authority(folder / "ca")
        leaf = authority.issue("127.0.0.1")
        command = [sys.executable, "-m", "tests.bench.standin", str(leaf.certificate), str(leaf.key)]
        self._server = world.start(
            [*command, str(folder / "targets.json"), str(self._rounds)], stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        port = self._server.stdout.readline().strip()
        config, policy = folder / "agent.toml", folder / "policy.toml"
        policy.write_text("max_targets = 1_000_000\nmax_packets_per_s = 1_000_000\nmin_interval_s = 0.1\n")
        config.write_text(
            f'[server]\nurl = "wss://127.0.0.1:{port}"\nca_file = "{authority.file}"\n'
            f'passphrase_file = "{folder / "passphrase"}"\n'
            f'[agent]\nhostname = "bench"\nstate_dir = "{folder / "state"}"\n'
            f'[probe]\nallow_loopback = true\npolicy_file = "{policy}"\n'
        )
        module = "pingmon_agent" if len(addresses) <= MAX_TARGETS else "tests.bench.unlimited"
        self._log = (folder / "agent.log").open("w")
        self.process = world.start(
            [sys.executable, "-m", module, "run", "--config", str(config)], stderr=self._log, stdout=self._log
        )

    def rounds(self) -> list[dict[str, Any]]:
        """Whole rounds that have arrived, in order."""
        if self._reader is None and self._rounds.exists():
            self._reader = self._rounds.open()
        while self._reader is not None and (text := self._reader.readline()):
            self._partial += text
            if text.endswith("\n"):
                self._read.append(json.loads(self._partial))
                self._partial = ""
        return self._read

    def wait_rounds(self, count: int, timeout_s: float = _START_S) -> None:
        """Until `count` rounds have arrived; RuntimeError with the agent's log if they do not come."""
        deadline = time.monotonic() + timeout_s
        while len(self.rounds()) < count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "agent.log").read_text()
                raise RuntimeError(
                    f"the agent ended or brought no {count} rounds in {timeout_s:.0f} s; its log:\n{log[-2000:]}"
                )
            time.sleep(0.05)

    def measure(self, windows: int) -> Measured:
        """Windows of one interval each, from the pause after the second round on: start-up is over by then."""
        self.wait_rounds(2)
        time.sleep(_SETTLE_S)
        before = len(self.rounds())
        found = Measured()
        began, used = time.monotonic(), cpu_ns(self.process.pid)
        for number in range(1, windows + 1):
            time.sleep(max(0.0, began + number * self._interval_s - time.monotonic()))
            now = cpu_ns(self.process.pid)
            found.cpu_ms.append((now - used) / 1e6)
            used = now
        found.memory = memory_mib(self.process.pid)
        self.wait_rounds(before + windows, 2 * self._interval_s)
        for row in self.rounds()[before : before + windows]:
            found.probes += len(row["rtt"])
            found.lost += sum(sample < 0 for sample in row["rtt"])
            found.disturbed += bool(row["disturbed"])
        return found

    def close(self) -> None:
        """Stop the agent, then the server."""
        end(self.process)
        end(self._server)
        self._log.close()
        if self._reader is not None:
            self._reader.close()
