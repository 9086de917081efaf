"""A bed: hosts in network namespaces of their own, the switch between them, and the controller (here) on 10.99.0.1.

    with Bed({"server": bookworm, "agent1": bookworm, "agent2": trixie}) as bed:
        bed.link("agent1", "server", Rule(delay_s=0.030))
        bed["server"].cut_power()

Works inside the namespaces of spaces.py only, and ends with them. Must not know: what is deployed, and Ansible's words.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from . import cgroups, facts, inventory, rules
from .cable import device, ip
from .furnish import furnish
from .host import Host
from .rules import Rule
from .spaces import HOME, ROOT, must_be_inside

T = TypeVar("T")
NETWORK = "10.99.0.{}"
CONTROLLER = NETWORK.format(1)
HERE = "controller"  # the port of the machine that the tests and Ansible run on
FIRST_HOST = 10


class Bed:
    """The hosts of `images` (a tree for each name); `start` boots them, `stop` takes them down."""

    def __init__(self, images: Mapping[str, Path], logs: Path) -> None:
        must_be_inside()
        cgroups.sweep()
        self.place, self.logs, self.images = HOME, logs, images
        self.hosts: dict[str, Host] = {}
        self._control = HOME / "switch.sock"
        self._switch: subprocess.Popen[bytes] | None = None
        self._saved: dict[str, float] = {}  # when its journal was saved last

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> Bed:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Hosts made, plugged in, booted (at once); `inventory` is written."""
        self.key = inventory.make_key(self.place / "id")
        for number, (name, image) in enumerate(self.images.items()):
            self.hosts[name] = Host(name, NETWORK.format(FIRST_HOST + number), image, self.place / name)
        self.each(self._furnish)
        self._start_switch()
        self.each(Host.boot)
        self.ssh_config = inventory.write_ssh_config(self.place, self.key, self.hosts.values())
        self.inventory = inventory.write_inventory(self.place / "inventory", self.hosts.values(), self.ssh_config)

    def stop(self) -> None:
        """Logs saved, everything ended."""
        self.save_logs()
        self.each(Host.cut_power)
        if self._switch is not None:
            self._switch.terminate()
            self._switch.wait()
        cgroups.sweep(cgroups.own_tag())

    def each(self, act: Callable[[Host], T], names: Sequence[str] = ()) -> list[T]:
        """`act` on all hosts, or on those named, at once; the answers in their order."""
        with ThreadPoolExecutor(max(1, len(self.hosts))) as pool:
            return list(pool.map(act, [self.hosts[name] for name in names or self.hosts]))

    def _furnish(self, host: Host) -> None:
        addresses = {HERE: CONTROLLER, **{other.name: other.address for other in self.hosts.values()}}
        furnish(host.disk.root, host.name, addresses, self.key.with_suffix(".pub").read_text())
        host.disk.freeze_base()

    def _start_switch(self) -> None:
        ports = [f"{HERE}=bed0", *(f"{name}={device(name)}" for name in self.hosts)]
        argv = [sys.executable, "-m", "tests.deploy.bed.switch", str(self._control), *ports]
        self._switch = subprocess.Popen(argv, cwd=ROOT)
        while not self._control.exists():
            if self._switch.poll() is not None:
                raise RuntimeError("the switch of the test bed did not start; what it said stands above.")
            time.sleep(0.02)
        ip("addr", "add", f"{CONTROLLER}/24", "dev", "bed0")
        ip("link", "set", "bed0", "up")

    # ---- the network between them

    def link(self, one: str, other: str, rule: Rule) -> None:
        """`rule` in both directions between two hosts (names, "controller", or "*" for any)."""
        self.path(one, other, rule)
        self.path(other, one, rule)

    def path(self, source: str, target: str, rule: Rule) -> None:
        """`rule` in one direction."""
        rules.set_rule(self._control, source, target, rule)

    def partition(self, name: str) -> None:
        """Nothing reaches this host and nothing leaves it, the controller included."""
        self.link(name, rules.ANY, rules.CUT)

    def heal(self) -> None:
        """No rule holds any more."""
        rules.clear(self._control)

    def frames(self) -> dict[str, int]:
        """What the switch has counted: carried, dropped, copied, queued."""
        return rules.counters(self._control)

    # ---- snapshots: of the hosts that are named, or of all; each shuts them down and boots them (about a second)

    def freeze(self, *names: str) -> None:
        """The hosts as they are now can be come back to."""
        self._between_boots(lambda host: host.disk.freeze(), names)

    def rollback(self, *names: str) -> None:
        """The hosts as at the last freeze, or as at the start of the bed; the network whole."""
        self._between_boots(lambda host: host.disk.rollback(), names)

    def reset(self, *names: str) -> None:
        """The hosts as at the start of the bed, whatever was frozen since; the network whole."""
        self._between_boots(lambda host: host.disk.reset(), names)

    def _between_boots(self, act: Callable[[Host], None], names: Sequence[str]) -> None:
        self.heal()
        self.each(Host.shut_down, names)
        self.save_logs()
        self.each(act, names)
        self.each(Host.boot, names)

    # ---- logs

    def save_logs(self) -> None:
        """Journals and consoles into `logs`, each entry of a journal once."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for host in self.hosts.values():
            since, self._saved[host.name] = self._saved.get(host.name, 0.0), time.time()
            with (self.logs / f"{host.name}.journal").open("a", encoding="utf-8") as kept:
                kept.write(facts.journal_text(host, since))
            if host.console.exists():
                (self.logs / f"{host.name}.console").write_bytes(host.console.read_bytes())
