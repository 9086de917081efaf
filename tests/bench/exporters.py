"""The two Prometheus exporters that ping, as a Prometheus would have them work, and what each used per round.

smokeping_prober polls its sockets all the time, so it is measured over whole intervals, as the agent is.
Must not know: the agent.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from .facts import cpu_ns, memory_mib
from .ours import Measured
from .peers import NoFiguresError, need, running
from .world import World

_SMOKEPING_PORT, _BLACKBOX_PORT = 9374, 9115
_INTERVAL_S = 5.0
_AT_ONCE = 64  # probes that the caller of blackbox_exporter keeps going, as a large Prometheus would
_MODULES = "modules: {icmp: {prober: icmp, timeout: 2s, icmp: {preferred_ip_protocol: ip4}}}\n"
_UP_S = 60.0


def smokeping_prober(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """One process that pings each target every 5 s, unprivileged (its default). Loss: by its own counters."""
    config = folder / "smokeping.yml"
    hosts = "".join(f"    - {address}\n" for address in addresses)
    config.write_text(f"targets:\n- interval: 5s\n  network: ip4\n  protocol: icmp\n  size: 56\n  hosts:\n{hosts}")
    listen = f"--web.listen-address=127.0.0.1:{_SMOKEPING_PORT}"
    command = [need("prometheus-smokeping-prober"), f"--config.file={config}", listen]
    found = Measured()
    with (folder / "smokeping.log").open("w") as log, running(world, command, stderr=log, stdout=log) as child:
        _wait_up(world, child, _SMOKEPING_PORT)
        time.sleep(_INTERVAL_S)
        before = _requests_and_replies(world)
        began, used = time.monotonic(), cpu_ns(child.pid)
        for number in range(1, rounds + 1):
            time.sleep(max(0.0, began + number * _INTERVAL_S - time.monotonic()))
            now = cpu_ns(child.pid)
            found.cpu_ms.append((now - used) / 1e6)
            used = now
        after = _requests_and_replies(world)
        found.memory = memory_mib(child.pid)
    found.probes = after[0] - before[0]
    found.lost = max(0, found.probes - (after[1] - before[1]))
    return found


def _requests_and_replies(world: World) -> tuple[int, int]:
    text = world.near.run(lambda: _get(_SMOKEPING_PORT, "/metrics"))
    sent = re.findall(r"^smokeping_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
    back = re.findall(r"^smokeping_response_duration_seconds_count\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, sent))), int(sum(map(float, back)))


def blackbox_exporter(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """One HTTP request per target and round; only the exporter's own processor time is counted."""
    config = folder / "blackbox.yml"
    config.write_text(_MODULES)
    listen = f"--web.listen-address=127.0.0.1:{_BLACKBOX_PORT}"
    command = [need("prometheus-blackbox-exporter"), f"--config.file={config}", listen]
    found = Measured()
    with (folder / "blackbox.log").open("w") as log, running(world, command, stderr=log, stdout=log) as child:
        _wait_up(world, child, _BLACKBOX_PORT)
        world.near.run(lambda: _probe_all(addresses[:_AT_ONCE]))
        for _ in range(rounds):
            before = cpu_ns(child.pid)
            answered = world.near.run(lambda: _probe_all(addresses))
            found.cpu_ms.append((cpu_ns(child.pid) - before) / 1e6)
            found.probes += len(addresses)
            found.lost += len(addresses) - answered
        found.memory = memory_mib(child.pid)
    return found


def _probe_all(addresses: list[str]) -> int:
    """How many answered. Threads of a thread in the namespace are in it as well."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for address in addresses:
        waiting.put(address)
    answered: list[int] = []

    def caller() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", _BLACKBOX_PORT, timeout=10)
        good = 0
        try:
            while True:
                connection.request("GET", f"/probe?module=icmp&target={waiting.get_nowait()}")
                good += b"\nprobe_success 1" in connection.getresponse().read()
        except Empty:
            answered.append(good)
        finally:
            connection.close()

    callers = [threading.Thread(target=caller) for _ in range(_AT_ONCE)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    return sum(answered)


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _wait_up(world: World, child: subprocess.Popen[Any], port: int) -> None:
    deadline = time.monotonic() + _UP_S
    while True:
        try:
            world.near.run(lambda: _get(port, "/metrics"))
            return
        except OSError as err:
            if child.poll() is not None or time.monotonic() > deadline:
                raise NoFiguresError(f"it does not answer on port {port} within {_UP_S:.0f} s ({err})") from None
            time.sleep(0.1)
