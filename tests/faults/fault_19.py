"""Fault 19: some agents stop reading, and go on sending."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import websocket

from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import NAMESPACE, Handshake
from tests.bench.facts import percentile
from tests.support.web import strict_context

from .agents import VERSION
from .fault import Fault, Findings
from .guards import TIMEOUTS, plan
from .world import AGENTS, Run, World

DEAF = 4
DEAF_NAMES = [f"deaf-{number}" for number in range(DEAF)]
CUT_S, GROWTH_MIB, SLOWER = 60.0, 30.0, 1.2
NOISE_S = 0.1  # of the 99th percentile on a shared machine
SAYS_EVERY_S = 0.05


class Deaf(threading.Thread):
    """An approved agent with the smallest receive buffer there is: it shakes hands all the time and reads nothing."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._world, self._until = world, 0.0
        hello = Handshake(
            passphrase=world.legacy_secret(), hostname=name, ip_address="127.0.0.1", version=VERSION, epoch="1" * 16
        )
        self._hello = codec.encode_handshake(hello)
        self.lasted: list[float] = []  # how long each connection stood

    def run(self) -> None:
        """Connect again whenever the server has cut the line."""
        self._until = time.monotonic() + CUT_S + 10
        while time.monotonic() < self._until:
            began = time.monotonic()
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._talk()
            self.lasted.append(time.monotonic() - began)
            time.sleep(0.2)

    def stop(self) -> None:
        """Let the line that stands end."""
        self._until = 0.0
        self.join(5)

    def _talk(self) -> None:
        line = websocket.create_connection(
            f"{self._world.server.url.replace('https', 'wss')}/socket.io/?EIO=4&transport=websocket",
            sslopt={"context": strict_context(self._world.server.ca_file)},
            sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 2048),),
            timeout=5,
            suppress_origin=True,
        )
        with contextlib.closing(line):
            line.send(f"40{NAMESPACE},")
            number = 0
            while time.monotonic() < self._until:
                line.send(f"42{NAMESPACE},{number}{json.dumps(['handshake', self._hello])}")
                number += 1
                time.sleep(SAYS_EVERY_S)


def run(run: Run) -> Findings:
    """A while without them, a while with them."""
    found, span = Findings(), run.scale(20, 8)
    with World(run, agents=AGENTS, legacy=DEAF_NAMES, plan=plan(run)) as world:
        world.start()
        since, memory = time.monotonic(), world.server.memory_mib()
        time.sleep(span)
        calm = percentile(world.fleet.waits(since), 0.99)
        since = time.monotonic()
        cut, grown = _with_the_deaf(world, memory)
        beside = percentile(world.fleet.waits(since), 0.99)
        world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
    found.figures |= {"deaf": DEAF, "cut_s": cut, "ack_p99_before_s": calm, "ack_p99_s": beside, "grown_mib": grown}
    found.require(cut <= CUT_S, f"a deaf agent was kept for {cut:.0f} s, {CUT_S:g} are allowed")
    found.require(beside <= calm * SLOWER + NOISE_S, f"others wait {beside:.2f} s instead of {calm:.2f} s")
    found.require(grown <= GROWTH_MIB, f"the server grew by {grown:.0f} MiB, {GROWTH_MIB:g} are allowed")
    return found


def _with_the_deaf(world: World, memory: float) -> tuple[float, float]:
    """Until each was cut once: how long the last one was kept, and how much the server has grown."""
    deaf, since = [Deaf(world, name) for name in DEAF_NAMES], time.monotonic()
    for agent in deaf:
        agent.start()
    world.journal.note("some agents are deaf")
    while time.monotonic() - since < CUT_S + 5 and not all(agent.lasted for agent in deaf):
        time.sleep(0.1)
    cut = max(max(agent.lasted, default=time.monotonic() - since) for agent in deaf)
    grown = world.server.memory_mib() - memory
    for agent in deaf:
        agent.stop()
    return cut, grown


FAULT = Fault(
    number=19,
    title="slow consumer",
    inject=f"{DEAF} approved agents beside the {AGENTS} shake hands 20 times a second and read nothing, until cut",
    passes="each is cut within 60 s; for the others 99 of 100 acknowledgements take no more than 1.2 times as long "
    "(and 0.1 s of noise), the server grows by 30 MiB at most: nothing lost, doubled, changed.",
    run=run,
    guards=TIMEOUTS,
)
