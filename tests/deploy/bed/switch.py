"""A learning Ethernet switch in user space, with rules per direction: the kernel of these machines has no netem.

    python -m tests.deploy.bed.switch CONTROL PORT=DEVICE...

Each port is a TAP device, made in the namespace that this runs in and free to be moved. Rules come as datagrams
(rules.py). Must not know: who is at the other end.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from .rules import ANY, Rule

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
_PR_SET_TIMERSLACK = 29
_BATCH = 64  # frames of one port before the others get their turn


def open_tap(name: str) -> int:
    """A new TAP device `name` in this namespace; its file."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP_WITHOUT_HEADER))
    return tap


class Switch:
    """Frames between `ports`; `control` brings the rules; chance comes from `seed` alone."""

    def __init__(self, ports: dict[int, str], control: socket.socket, seed: int) -> None:
        self.ports, self.control = ports, control
        self.chance = random.Random(seed)
        self.homes: dict[bytes, int] = {}  # which port a hardware address was last seen at
        self.rules: dict[tuple[str, str], Rule] = {}
        self.busy_until: dict[tuple[str, str], float] = {}
        self.waiting: list[tuple[float, int, int, bytes]] = []
        self.order = itertools.count()  # frames of the same instant keep their order
        self.counted: Counter[str] = Counter(carried=0, dropped=0, copied=0)

    def run(self) -> None:
        """Until the process ends."""
        while True:
            # select, not poll or epoll: their Python time-outs are whole milliseconds
            ready, _, _ = select.select([self.control.fileno(), *self.ports], [], [], self._send_due())
            if self.control.fileno() in ready:
                self._obey()
                ready.remove(self.control.fileno())
            for port in ready:
                self._empty(port)

    def _send_due(self) -> float | None:
        """Send what is due; seconds until the next frame is (None: none waits)."""
        while self.waiting:
            wait_s = self.waiting[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, _, port, frame = heapq.heappop(self.waiting)
            self._send(port, frame)
        return None

    def _send(self, port: int, frame: bytes) -> None:
        try:
            os.write(port, frame)
            self.counted["carried"] += 1
        except OSError:  # the other end is down, as a real one would be
            self.counted["dropped"] += 1

    def _empty(self, port: int) -> None:
        """Forward what a port has, up to a batch."""
        for _ in range(_BATCH):
            try:
                frame = os.read(port, 65536)
            except OSError:  # nothing left (EAGAIN), or the link is down (EIO)
                return
            self.homes[frame[6:12]] = port
            home = None if frame[0] & 1 else self.homes.get(frame[:6])
            for target in self.ports if home is None else (home,):
                if target != port:
                    self._carry(port, target, frame)

    def _rule(self, path: tuple[str, str]) -> Rule | None:
        """The most particular rule for this direction."""
        rules = self.rules
        return rules.get(path) or rules.get((path[0], ANY)) or rules.get((ANY, path[1])) or rules.get((ANY, ANY))

    def _carry(self, source: int, target: int, frame: bytes) -> None:
        """One frame through the rule of its direction."""
        path = (self.ports[source], self.ports[target])
        rule = self._rule(path)
        if rule is None:
            self._send(target, frame)
            return
        due = self._due(path, rule, len(frame) * 8)
        if due is None or self.chance.random() < rule.loss:
            self.counted["dropped"] += 1
            return
        heapq.heappush(self.waiting, (due, next(self.order), target, frame))
        if self.chance.random() < rule.duplicates:
            self.counted["copied"] += 1
            heapq.heappush(self.waiting, (due, next(self.order), target, frame))

    def _due(self, path: tuple[str, str], rule: Rule, bits: int) -> float | None:
        """When a frame of this size arrives (monotonic seconds); None: the queue of a limited rate is full."""
        now = time.monotonic()
        due = now + rule.delay_s + self.chance.uniform(-1, 1) * rule.jitter_s
        if rule.rate_bps:
            due = max(due, self.busy_until.get(path, 0.0)) + bits / rule.rate_bps
            if due - now > rule.delay_s + rule.queue_s:
                return None
            self.busy_until[path] = due
        return due

    def _obey(self) -> None:
        """One order, answered once it is in force."""
        message, sender = self.control.recvfrom(65536)
        order = json.loads(message)
        if order["op"] == "set":
            self.rules[order["source"], order["target"]] = Rule(**order["rule"])
        elif order["op"] == "clear":
            self.rules.clear()
            self.busy_until.clear()
        self.control.sendto(json.dumps({**self.counted, "queued": len(self.waiting)}).encode(), sender)


def main(control_path: Path, specifications: list[str]) -> None:
    """The whole life of the process; that `control_path` exists says that all devices are there."""
    ports = {open_tap(device): port for port, device in (word.split("=") for word in specifications)}
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # nanoseconds; the default of 50 us shows in a ping
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    control.bind(str(control_path))
    Switch(ports, control, int(os.environ.get("PINGMON_BED_SEED", "1"))).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
