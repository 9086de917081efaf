"""The network of the lab: one process that reads each packet from a TUN device, keeps it as long as its way takes, and
writes it to the device of its destination. No netem is needed, and no ARP: TUN devices carry bare IP packets.

Precision is the point: `select` (its time-outs are microseconds; those of poll are milliseconds), a timer slack of
1 ns, real-time priority where it is to be had, and the last stretch before a deadline is spent turning, not sleeping.
Must not know: pingmon.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .topology import Outage, Topology, Way

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29
# A wake-up comes this late on an idle machine; from here on to the deadline we turn.
SPIN_S = 0.000_15
MAX_WAITING = 20_000  # packets; a lab has a few hundred, TCP bursts included
Pair = tuple[str, str]


def open_tun(name: str) -> int:
    """A new TUN device `name` in this network namespace; its file stays usable when the device moves to another."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def be_punctual() -> str:
    """Ask the kernel for the best it gives; returns what that was."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        return "real-time priority"
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        return "priority -20"
    return "ordinary priority"


@dataclass
class Network:
    """What happens to packets. `forced[a, b]` overrides the schedule: True down, False up; both orders are kept."""

    ways: dict[Pair, Way]
    outages: tuple[Outage, ...]
    started: float
    forced: dict[Pair, bool] = field(default_factory=dict)
    carried: int = 0
    dropped: int = 0
    lateness_us: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def is_down(self, pair: Pair, now: float) -> bool:
        """Whether nothing passes from pair[0] to pair[1] at `now` (monotonic)."""
        if pair in self.forced:
            return self.forced[pair]
        return any({o.a, o.b} == set(pair) and o.is_down(now - self.started) for o in self.outages)

    def order(self, message: dict[str, Any]) -> dict[str, Any]:
        """Obey one control message (see control.py) and answer it."""
        match message:
            case {"op": "down" | "up" as op, "a": str(a), "b": str(b)}:
                self.forced[a, b] = self.forced[b, a] = op == "down"
            case {"op": "auto"}:
                self.forced.clear()
            case {"op": "set", "a": str(a), "b": str(b), "delay_ms": delay} if (a, b) in self.ways:
                jitter, loss = message.get("jitter_ms", 0.0), message.get("loss_percent", 0.0)
                self.ways[a, b] = Way(delay / 1000, jitter / 1000, loss / 100)
            case {"op": "state"}:
                return self.state()
            case _:
                return {"ok": False, "message": "ops are down, up, auto, set, state; places are those of the topology"}
        return {"ok": True}

    def state(self) -> dict[str, Any]:
        """What is down now, counters, and how late packets left: p50, p99 and worst of the last 4096, in us."""
        now = time.monotonic()
        late = sorted(self.lateness_us) or [0.0]
        return {
            "ok": True,
            "down": sorted({"-".join(sorted(pair)) for pair in self.ways if self.is_down(pair, now)}),
            "carried": self.carried,
            "dropped": self.dropped,
            "late_us": {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "max": late[-1]},
        }


class Forwarder:
    """The loop. `tuns[place]` is the place's device, `addresses[packed address]` the place that has it."""

    def __init__(self, tuns: dict[str, int], addresses: dict[bytes, str], network: Network, seed: int = 1) -> None:
        self.tuns, self.addresses, self.network = tuns, addresses, network
        self.names = {tun: place for place, tun in tuns.items()}
        self.random = random.Random(seed)
        self.waiting: list[tuple[float, int, int, bytes]] = []
        self.last: dict[Pair, float] = {}
        self.number = 0

    def run(self, control: socket.socket) -> None:
        """For ever: the process is ended from outside."""
        watched = [control, *self.names]
        while True:
            due = self.waiting[0][0] if self.waiting else None
            pause = None if due is None else max(0.0, due - time.monotonic() - SPIN_S)
            ready, _, _ = select.select(watched, [], [], pause)
            for source in ready:
                if isinstance(source, socket.socket):
                    self._answer(source)
                else:
                    self._take(source)
            self._release()

    def _take(self, tun: int) -> None:
        """Read what came from one place (bounded, so that others get their turn) and decide its fate."""
        for _ in range(32):
            try:
                packet = os.read(tun, 65_536)
            except BlockingIOError:
                return
            arrived = time.monotonic()
            to = self.addresses.get(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
            pair = (self.names[tun], to or "")
            way = self.network.ways.get(pair)
            if way is None:
                continue  # multicast chatter of the kernel
            self._decide(pair, way, packet, arrived)

    def _decide(self, pair: Pair, way: Way, packet: bytes, arrived: float) -> None:
        network = self.network
        lost = network.is_down(pair, arrived) or self.random.random() < way.loss or len(self.waiting) >= MAX_WAITING
        if lost:
            network.dropped += 1
            return
        due = arrived + way.delay_s + self.random.uniform(-way.jitter_s, way.jitter_s)
        # A queue jitters but does not overtake: reordering would look like loss to TCP.
        due = self.last[pair] = max(due, self.last.get(pair, 0.0))
        self.number += 1
        heapq.heappush(self.waiting, (due, self.number, self.tuns[pair[1]], packet))

    def _release(self) -> None:
        """Write out what is due, turning until the very moment where it is close."""
        while self.waiting:
            due = self.waiting[0][0]
            now = time.monotonic()
            if due - now > SPIN_S:
                return
            while now < due:
                now = time.monotonic()
            _, _, tun, packet = heapq.heappop(self.waiting)
            with contextlib.suppress(OSError):  # the device is down or gone, as a cable may be
                os.write(tun, packet)
                self.network.carried += 1
                self.network.lateness_us.append(round((now - due) * 1e6, 1))

    def _answer(self, control: socket.socket) -> None:
        message, sender = control.recvfrom(65_536)
        try:
            answer = self.network.order(json.loads(message))
        except (ValueError, TypeError) as error:
            answer = {"ok": False, "message": f"no control message: {error}"}
        if sender:
            with contextlib.suppress(OSError):  # whoever asked may be gone
                control.sendto(json.dumps(answer).encode(), sender)


def listen(path: Path) -> socket.socket:
    """The control socket, at a path that every namespace of this machine can reach."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(str(path))
    return control


def main(topology: Topology, tuns: dict[str, int], addresses: dict[bytes, str], control: socket.socket) -> None:
    """The forwarder process, started by fork with everything already open."""
    be_punctual()
    network = Network(dict(topology.ways), topology.outages, time.monotonic())
    Forwarder(tuns, addresses, network).run(control)
