"""The two stores that `bench-ingest` sets ours beside: Prometheus by remote write over TLS, and RRD files by rrdcached.

Both run here and get the same samples; only their own processor time counts. Must not know: pingmon.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .facts import cpu_ns
from .feed import Feed
from .peers import NoFiguresError, environment, need, spawned
from .prometheus import labels, running

_UP_S = 60.0


def prometheus(feed: Feed, folder: Path) -> float:
    """CPU seconds of Prometheus' remote-write receiver for all samples: one request per agent and round."""
    with running(folder) as store:
        series = [
            [labels(f"probe-{agent}", f"target-{target}") for target in range(feed.targets)]
            for agent in range(feed.agents)
        ]
        before = cpu_ns(store.pid)
        for number in range(feed.rounds):
            for agent in range(feed.agents):
                store.write(series[agent], [feed.column(agent, number)], [feed.time_ms(number)])
        return (cpu_ns(store.pid) - before) / 1e9


def rrdtool(feed: Feed, folder: Path) -> float:
    """CPU seconds of `rrdtool update` through rrdcached, an update per pair and round, until all is in the files."""
    with _rrdcached(feed, folder) as (line, daemon):
        address = f"unix:{folder / 'rrd.sock'}"
        before = cpu_ns(daemon.pid)
        command = [need("rrdtool"), "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder, env=environment()
        ) as client:
            assert client.stdin is not None
            for number in range(feed.rounds):
                for agent in range(feed.agents):
                    updates = [f"update --daemon {address} {update}" for update in _updates(feed, agent, number)]
                    client.stdin.write("".join(updates).encode())
            client.stdin.flush()
            _arrived(line, feed.samples)
            used = cpu_ns(client.pid)
        _say(line, "FLUSHALL\n")
        _drained(line)
        return (used + cpu_ns(daemon.pid) - before) / 1e9


def rrdcached(feed: Feed, folder: Path) -> float:
    """CPU seconds of rrdcached alone, fed in batches over one connection: kinder than any program that uses it is."""
    with _rrdcached(feed, folder) as (line, daemon):
        before = cpu_ns(daemon.pid)
        for number in range(feed.rounds):
            for agent in range(feed.agents):
                _batch(line, [f"UPDATE {update}" for update in _updates(feed, agent, number)])
        _say(line, "FLUSHALL\n")
        _drained(line)
        return (cpu_ns(daemon.pid) - before) / 1e9


@contextmanager
def _rrdcached(feed: Feed, folder: Path) -> Iterator[tuple[Any, subprocess.Popen[Any]]]:
    """A daemon with one empty file per pair, as SmokePing has them, and a line to it."""
    (folder / "rrd").mkdir()
    address = folder / "rrd.sock"
    command = [
        need("rrdcached"), "-g", "-l", f"unix:{address}", "-b", str(folder / "rrd"), "-B", "-R", "-w", "3600", "-f",
        "7200", "-p", str(folder / "rrdcached.pid"),
    ]  # fmt: skip
    with spawned(command, folder / "rrdcached.log", folder) as child, _dialled(child, address) as line:
        start = feed.time_ms(0) // 1000 - 10
        for agent in range(feed.agents):
            for target in range(feed.targets):
                name = f"{agent}-{target}.rrd"
                _say(line, f"CREATE {name} -b {start} -s 5 DS:rtt:GAUGE:30:0:U RRA:AVERAGE:0.5:1:17280\n")
        yield line, child


def _updates(feed: Feed, agent: int, number: int) -> list[str]:
    at = feed.time_ms(number) // 1000
    values = ("U" if us < 0 else f"{us / 1e6:.6f}" for us in feed.column(agent, number))
    return [f"{agent}-{target}.rrd {at}:{value}\n" for target, value in enumerate(values)]


def _dialled(child: subprocess.Popen[Any], address: Path) -> Any:
    deadline = time.monotonic() + _UP_S
    while not address.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            raise NoFiguresError(f"rrdcached does not start: {(address.parent / 'rrdcached.log').read_text()[:200]}")
        time.sleep(0.05)
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(str(address))
    return plain.makefile("rwb")


def _say(line: Any, text: str) -> list[str]:
    """One command; the lines of its answer."""
    line.write(text.encode())
    line.flush()
    status, _, rest = line.readline().decode().partition(" ")
    if int(status) < 0:
        raise NoFiguresError(f"rrdcached refused {text.split()[0]}: {rest.strip()}")
    return [line.readline().decode() for _ in range(int(status))]


def _batch(line: Any, updates: list[str]) -> None:
    _say(line, "BATCH\n")
    line.write("".join(updates).encode() + b".\n")
    line.flush()
    refused = int(line.readline().split()[0])
    if refused:
        raise NoFiguresError(f"rrdcached refused {refused} updates: {line.readline().decode().strip()}")


def _stats(line: Any) -> dict[str, int]:
    return {name: int(value) for name, value in (fact.split(": ") for fact in _say(line, "STATS\n"))}


def _arrived(line: Any, updates: int) -> None:
    """Wait until the daemon has got so many."""
    while _stats(line)["UpdatesReceived"] < updates:
        time.sleep(0.2)


def _drained(line: Any) -> None:
    """Wait until no file waits to be written."""
    while _stats(line)["QueueLength"]:
        time.sleep(0.2)
