"""What runs as process 1 of the lab's own PID, mount and network namespaces: when it ends, all of the lab ends with it.

It makes a namespace per city, the network between them, a server (in the namespace it stands in itself) and an agent
per city, approves them, tells the developer where to look, and waits. Must not know: the host it runs on.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pingmon.cli.children import Child
from tests.support.processes import LOOPBACK, Agent, Server, make_pki, wait_for, write_agent, write_server

from . import control, forwarder, relay
from .topology import SERVER, Topology

NETNS = Path("/run/netns")
V4, V6 = "10.77.0.{}", "fd77::{}"


class StoppedError(Exception):
    """The developer has had enough of the lab."""


@dataclass(frozen=True)
class Order:
    """What the developer asked for."""

    directory: Path
    port: int
    interval_s: float
    topology: Topology


def address(topology: Topology, place: str, family: str = V4) -> str:
    """The address of the server or of a city in the lab's network."""
    return family.format(topology.places.index(place) + 1)


def ip(*words: str) -> None:
    """Run iproute2, quietly; CalledProcessError with its words where it refuses."""
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def fork(function: Callable[[], None]) -> int:
    """Run `function` in a process of its own that keeps what is open here; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
        finally:
            os._exit(code)
    return pid


def build_network(topology: Topology) -> tuple[dict[str, int], dict[bytes, str]]:
    """A namespace per city and a TUN device `net0` in each place: (device file by place, place by packed address)."""
    NETNS.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(NETNS)], check=True)
    ip("link", "set", "lo", "up")
    tuns, addresses = {}, {}
    for number, place in enumerate(topology.places):
        tuns[place] = forwarder.open_tun(f"lab{number}")
        where: tuple[str, ...] = ()
        if place == SERVER:
            ip("link", "set", f"lab{number}", "name", "net0")
        else:
            ip("netns", "add", place)
            ip("link", "set", f"lab{number}", "netns", place, "name", "net0")
            where = ("-n", place)
            ip(*where, "link", "set", "lo", "up")
        ip(*where, "addr", "add", address(topology, place) + "/24", "dev", "net0")
        ip(*where, "addr", "add", address(topology, place, V6) + "/64", "dev", "net0", "nodad")
        ip(*where, "link", "set", "net0", "up")
        for family in (V4, V6):
            addresses[ip_address(address(topology, place, family)).packed] = place
    return tuns, addresses


def start_server(order: Order, server: Server) -> None:
    """Bring the server to where it is ready and knows no agent yet."""
    make_pki(order.directory, (*LOOPBACK, "ip:" + address(order.topology, SERVER)))
    write_server(server, listen="0.0.0.0", interval_s=order.interval_s, mesh=True)
    server.cli("db", "upgrade")
    server.start()


def start_agents(order: Order, server: Server, agents: list[Agent]) -> None:
    """An agent per city, in the city's namespace, all pending; each is put into `agents` when it runs."""
    url = f"wss://{address(order.topology, SERVER)}:{order.port}"
    passphrase = server.passphrase("lab", "--uses", str(len(order.topology.cities)))
    for city in order.topology.cities:
        agent = Agent(server, order.directory / city, city, prefix=("nsenter", f"--net={NETNS / city}", "--"))
        write_agent(
            agent,
            url=url,
            ip_address=address(order.topology, city),
            passphrase=passphrase,
            timeout_ms=round(min(2000, order.interval_s * 800)),
        )
        agent.start()
        agents.append(agent)


def approve(server: Server, agents: list[Agent]) -> None:
    """Approve all agents once they have registered."""
    cities = [agent.hostname for agent in agents]

    def all_registered() -> bool:
        return {row["hostname"] for row in server.cli_json("agents", "list")} >= set(cities)

    wait_for(all_registered, "all agents to register", deadline_s=60)
    server.cli("agents", "approve", *cities)


def describe(order: Order, server: Server, link: str) -> str:
    """Where to look, what there is to see, and what the developer can do to it."""
    topology, here = order.topology, order.directory
    if here.is_relative_to(Path.cwd()):
        here = here.relative_to(Path.cwd())
    rows = [
        f"{a:>6}" + "".join("      -" if a == b else f"{topology.rtt_ms(a, b):7.1f}" for b in topology.cities)
        for a in topology.cities
    ]
    outages = [
        f"  {o.a}-{o.b} is down for {o.down_s:g} s of every {o.every_s:g} s, first after {o.after_s:g} s"
        for o in topology.outages
    ]
    return "\n".join(
        [
            "",
            "round trips in ms, without jitter:",
            "      " + "".join(f"{city:>7}" for city in topology.cities),
            *rows,
            *outages,
            "",
            f"  grid            {server.url}/    (the certificate is private: trust {here}/ca/ca.pem)",
            f"  administrator   {link}    (one use, one hour, this machine only)",
            f"  command line    .venv/bin/pingmon agents list --config {here}/server.toml",
            f"  break a path    .venv/bin/python -m tests.lab --dir {here} down lon-nyc    (up, auto, state)",
            "  stop            Ctrl-C",
        ]
    )


def admin_link(server: Server) -> str:
    """The one-time link for the first administrator."""
    said = server.cli("users", "create", "--admin").stdout
    return next(word for word in said.split() if "/welcome/" in word)


def run(order: Order, listener: socket.socket, stop: int) -> int:
    """The whole life of the lab; `stop` becomes readable when the developer has had enough."""
    began = time.monotonic()
    order.directory.mkdir(parents=True, exist_ok=True)
    tuns, addresses = build_network(order.topology)
    ear = forwarder.listen(order.directory / "control.sock")
    workers = {
        fork(lambda: forwarder.main(order.topology, tuns, addresses, ear)): "the network",
        fork(lambda: relay.main(listener, "127.0.0.1", order.port)): "the relay",
    }
    for descriptor in tuns.values():
        os.close(descriptor)
    print(f"== network of {len(order.topology.cities)} cities up, starting the server", flush=True)
    server = Server(order.directory, order.port)
    agents: list[Agent] = []
    obey(stop)
    try:
        start_server(order, server)
        print("== server ready, starting agents", flush=True)
        start_agents(order, server, agents)
        approve(server, agents)
        print(describe(order, server, admin_link(server)), flush=True)
        print(f"== ready after {time.monotonic() - began:.1f} s", flush=True)
        return watch(server, agents, workers)
    except StoppedError:
        return 0
    finally:
        stop_all([agent.child for agent in agents] + [server.child])


def obey(stop: int) -> None:
    """From now on StoppedError interrupts the main thread, wherever it is, once `stop` is closed at the other end."""

    def interrupt(_number: int, _frame: object) -> None:
        raise StoppedError

    def listen() -> None:
        select.select([stop], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=listen, daemon=True).start()


def stop_all(programs: list[Child | None]) -> None:
    """End all programs at once, and not be interrupted at it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    children = [child for child in programs if child is not None]
    for child in children:
        if child.running:
            child.process.terminate()
    for child in children:
        child.stop()


def watch(server: Server, agents: list[Agent], workers: dict[int, str]) -> int:
    """Until a part of the lab dies (1, said on stderr)."""
    children = [child for child in (server.child, *(agent.child for agent in agents)) if child is not None]
    while True:
        time.sleep(0.5)
        for child in children:
            if not child.running:
                print(f"{child.name} died; its last lines:\n{child.last_lines()}", file=sys.stderr)
                return 1
        for pid, what in workers.items():
            if os.waitpid(pid, os.WNOHANG)[0]:
                print(f"{what} died; the lab cannot go on without it", file=sys.stderr)
                return 1


def say_state(directory: Path) -> str:
    """What the network does now, in a line."""
    state = control.send(directory, op="state")
    down = ", ".join(state["down"]) or "nothing"
    late = state["late_us"]
    return (
        f"down: {down}; carried {state['carried']}, dropped {state['dropped']} packets; "
        f"sent late by {late['p50']} us (median), {late['p99']} us (99 %), {late['max']} us (worst)"
    )
