"""The bench's own little network: a prober's namespace, and one that answers it at once or 20 ms late (root, Linux).

    prober  127.1.x.y on lo | veth --- far: 10.98.x.y answered by the kernel, 10.99.x.y by responder.py on a TUN device

Nothing leaves the machine. Must not know: which programs are measured.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.agent.namespaces import Namespace
from tests.lab.forwarder import open_tun

ROOT = Path(__file__).parents[2]
NEAR, FAR = "v-near", "v-far"
TUN = "responder"
PATHS = {"lo": "127.1.0.0", "0ms": "10.98.0.0", "20ms": "10.99.0.0"}
DELAY_S = 0.020
_QUEUE = 60_000  # packets the TUN device holds: a burst of 10,000 must be delayed, not lost


def addresses(path: str, count: int) -> list[str]:
    """`count` addresses that answer behind `path`; none ends in .0 or .255."""
    number = int(ipaddress.IPv4Address(PATHS[path]))
    found: list[str] = []
    while len(found) < count:
        number += 1
        if number & 0xFF not in (0, 255):
            found.append(str(ipaddress.IPv4Address(number)))
    return found


class World:
    """Both namespaces and the responder; `start` runs programs in the prober's. Use as a context manager."""

    def __init__(self) -> None:
        self.near, self.far = Namespace(), Namespace()
        self._children: list[subprocess.Popen[Any]] = []
        self._wire()
        self._responder = self._answer_late()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for child in [*self._children, self._responder]:
            end(child)
        self.near.close()
        self.far.close()

    def _wire(self) -> None:
        self.near.ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", self.far.name)
        for space, name, host in ((self.near, NEAR, 1), (self.far, FAR, 2)):
            space.ip("addr", "add", f"10.97.0.{host}/30", "dev", name)
            space.ip("link", "set", name, "up")
        for path in ("0ms", "20ms"):
            self.near.ip("route", "add", f"{PATHS[path]}/16", "via", "10.97.0.2")
        self.far.ip("route", "add", "local", f"{PATHS['0ms']}/16", "dev", "lo")
        self.far.sysctl("net.ipv4.ip_forward", "1")
        self.near.sysctl("net.ipv4.ping_group_range", "0 2147483647")

    def _answer_late(self) -> subprocess.Popen[Any]:
        tun = self.far.run(lambda: open_tun(TUN))
        self.far.ip("link", "set", TUN, "txqueuelen", str(_QUEUE))
        self.far.ip("link", "set", TUN, "up")
        self.far.ip("route", "add", f"{PATHS['20ms']}/16", "dev", TUN)
        command = [sys.executable, "-m", "tests.bench.responder", str(tun), str(DELAY_S)]
        child = subprocess.Popen(command, cwd=ROOT, pass_fds=[tun])
        os.close(tun)
        return child

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A program in the prober's namespace; the pid is the program's own, as `ip netns exec` becomes it."""
        child = subprocess.Popen(["ip", "netns", "exec", self.near.name, *command], cwd=ROOT, **options)
        self._children.append(child)
        return child


def end(child: subprocess.Popen[Any]) -> None:
    """Stop one program that we started, politely at first."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """`count` processes that do nothing but use the processor."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            end(loop)
