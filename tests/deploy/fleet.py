"""pingmon as its operators have it: deployed on the hosts of a bed by the playbooks, asked by commands and by the API.

fleet.play("site.yml"); fleet.api("/monitoring/agent1/agent2"); fleet.server("agents", "list", "--output", "json")
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import free_port, wait_for
from tests.support.web import EMAIL, PASSWORD, Session

from .bed.ansible import Ansible, Core, Played
from .bed.bed import Bed
from .first import First
from .releases import NEXT, VERSION

AGENTS = ("agent1", "agent2")
EVERY_S = 5.0
# What each agent pings: the other one, and the one target of the inventory.
PATHS = (("agent1", "agent2"), ("agent2", "agent1"), ("agent1", "server"), ("agent2", "server"))


@dataclass
class Fleet:
    """The bed with pingmon on it. `played` has each play: its name, its words, what it said."""

    bed: Bed
    ansible: Ansible
    first: First = field(default_factory=First)
    played: list[tuple[str, tuple[str, ...], Played]] = field(default_factory=list)
    commands: set[tuple[str, ...]] = field(default_factory=set)
    version: str = VERSION
    next_version: str = NEXT
    _sessions: dict[str, Session] = field(default_factory=dict)

    def play(self, name: str, *words: str, core: Core = "main", check: bool = True) -> Played:
        """Run a playbook of this repository; AssertionError with the end of what it said where `check` and it fails."""
        done = self.ansible.play(f"playbooks/{name}", *words, core=core, check=check)
        self.played.append((name, words, done))
        return done

    # ---- the server's command line, and its API the way an operator without a browser on the server has it

    def server(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What `pingmon ARGUMENT...` prints on the server."""
        self.commands.add(arguments)
        return self.bed["server"].run("pingmon", *arguments, stdin=stdin, check=check).stdout

    def agent(self, name: str) -> dict[str, Any]:
        """What the server says about one agent."""
        found: list[dict[str, Any]] = json.loads(self.server("agents", "list", "--output", "json"))
        return next(row for row in found if row["hostname"] == name)

    def wait(self, *arguments: str) -> None:
        """Until the server has a fresh round of every agent (or of those named)."""
        self.server("agents", "wait", "--timeout", "60", *arguments)

    @contextlib.contextmanager
    def tunnel(self) -> Iterator[int]:
        """The server's own loopback, on a port of this machine, by ssh as docs/operations.md says."""
        port = free_port()
        argv = ["ssh", "-F", str(self.bed.ssh_config), "-S", "none", "-N", "-L", f"{port}:127.0.0.1:8443"]
        with subprocess.Popen([*argv, self.bed["server"].address]) as tunnel:
            try:
                yield port
            finally:
                tunnel.terminate()

    def become_admin(self) -> None:
        """Redeem the one-time link of `pingmon users create --admin`."""
        link = self.server("users", "create", "--admin").strip()
        with self.tunnel() as port:
            session = Session(f"https://127.0.0.1:{port}", self.ca_file)
            wait_for(lambda: _answers(session), "the tunnel to the server")
            session.redeem(re.sub(r"127\.0\.0\.1:8443", f"127.0.0.1:{port}", link))

    def signed_in(self) -> Session:
        """A session over the network, as a browser on somebody's desk has it."""
        session = Session(f"https://{self.bed['server'].address}:8443", self.ca_file)
        session.fill_in("/login", EMAIL, PASSWORD)
        return session

    def api(self, path: str) -> Any:
        """The JSON at a path of the API; signs in where that is needed."""
        trusted = self.ca_file.read_text()
        if trusted not in self._sessions:  # a new authority is a new browser
            self._sessions = {trusted: self.signed_in()}
        return self._sessions[trusted].json(path)

    @property
    def ca_file(self) -> Path:
        """The authority that the plays made beside the inventory."""
        return self.bed.inventory.parent / "pki/ca.pem"

    def versions(self) -> dict[str, str]:
        """What is in use on each host."""
        commands = {"server": "pingmon", **dict.fromkeys(AGENTS, "pingmon-agent")}
        return {name: self.bed[name].run(word, "--version").stdout.split()[-1] for name, word in commands.items()}

    # ---- what was measured

    def samples(self, agent: str, target: str) -> list[dict[str, Any]]:
        """The last hour of a path, oldest first."""
        found: list[dict[str, Any]] = self.api(f"/monitoring/{agent}/{target}")["samples"]
        return found

    def live(self, since: float) -> list[tuple[str, str]]:
        """The paths with an answer in a round that began after `since` (unix time)."""
        return [
            path for path in PATHS if any(s["timestamp"] >= since and s["status"] == "ok" for s in self.samples(*path))
        ]

    def wait_until_live(self, since: float, deadline_s: float = 40.0) -> float:
        """Until all paths are; seconds that took."""
        began = time.monotonic()
        wait_for(
            lambda: len(self.live(since)) == len(PATHS), "all paths to be measured", deadline_s=deadline_s, every_s=0.3
        )
        return time.monotonic() - began

    def gaps(self, agent: str, target: str, since: float) -> list[float]:
        """Times between rounds since then that are not the interval, in seconds."""
        times = [sample["timestamp"] for sample in self.samples(agent, target) if sample["timestamp"] >= since]
        assert len(times) >= 3, f"{agent} has measured {target} {len(times)} times since then"
        return [b - a for a, b in itertools.pairwise(times) if abs(b - a - EVERY_S) > 0.5]


def _answers(session: Session) -> bool:
    try:
        return session.is_up("/-/ready")
    except OSError:
        return False
