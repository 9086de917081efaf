"""The two stores that `bench-ingest` sets ours beside: Prometheus by remote write over TLS, and RRD files by rrdcached.

Both run here and get the same samples; only their own processor time counts. Must not know: pingmon.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import subprocess
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import free_port, make_pki

from .facts import cpu_ns
from .feed import Feed
from .peers import FETCHED, NoFiguresError, need

_UP_S = 60.0
_LOST = float("nan")


def _environment() -> dict[str, str]:
    libraries = ":".join(str(path) for path in sorted(FETCHED.glob("usr/lib/*-linux-gnu*")))
    return {"LD_LIBRARY_PATH": libraries, "PATH": "/usr/bin:/bin"}


@contextmanager
def _daemon(command: list[str], log: Path, folder: Path) -> Iterator[subprocess.Popen[Any]]:
    with log.open("w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder, env=_environment())
    try:
        yield child
    finally:
        child.terminate()
        child.wait(60)


def prometheus(feed: Feed, folder: Path) -> float:
    """CPU seconds of Prometheus' remote-write receiver for all samples: one request per agent and round."""
    make_pki(folder)
    port = free_port()
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    web = folder / "web.yml"
    web.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key, min_version: TLS13}\n")
    command = [
        need("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--web.config.file={web}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver", "--log.level=warn",
    ]  # fmt: skip
    context = ssl.create_default_context(cafile=str(folder / "ca" / "ca.pem"))
    with _daemon(command, folder / "prometheus.log", folder) as child:
        connection = _connected(child, port, context)
        series = [[_labels(agent, target) for target in range(feed.targets)] for agent in range(feed.agents)]
        before = cpu_ns(child.pid)
        for number in range(feed.rounds):
            for agent in range(feed.agents):
                _write(connection, series[agent], feed.column(agent, number), feed.time_ms(number))
        return (cpu_ns(child.pid) - before) / 1e9


def _connected(child: subprocess.Popen[Any], port: int, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    deadline = time.monotonic() + _UP_S
    while True:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        try:
            connection.request("GET", "/-/ready")
            if connection.getresponse().read() and connection.sock is not None:
                return connection
        except OSError as err:
            if child.poll() is not None or time.monotonic() > deadline:
                raise NoFiguresError(f"prometheus does not answer ({err})") from None
        connection.close()
        time.sleep(0.2)


def _write(connection: http.client.HTTPSConnection, series: list[bytes], column: array[int], at_ms: int) -> None:
    at = b"\x10" + _varint(at_ms)
    parts = []
    for labels, sample in zip(series, column, strict=True):
        value = b"\x09" + struct.pack("<d", sample / 1e6 if sample >= 0 else _LOST) + at
        body = labels + b"\x12" + _varint(len(value)) + value
        parts.append(b"\x0a" + _varint(len(body)) + body)
    headers = {
        "Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }  # fmt: skip
    connection.request("POST", "/api/v1/write", _snappy(b"".join(parts)), headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 204:
        raise NoFiguresError(f"prometheus answered {answer.status}: {said[:200]!r}")


def _labels(agent: int, target: int) -> bytes:
    pairs = (("__name__", "ping_rtt_seconds"), ("agent", f"probe-{agent}"), ("target", f"target-{target}"))
    return b"".join(b"\x0a" + _varint(len(pair)) + pair for pair in (_text(1, k) + _text(2, v) for k, v in pairs))


def _text(field: int, text: str) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(text)) + text.encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _snappy(data: bytes) -> bytes:
    """One literal: valid, and nothing to decompress, which is to the receiver's advantage."""
    return _varint(len(data)) + b"\xf8" + struct.pack("<I", len(data) - 1)[:3] + data


def rrdtool(feed: Feed, folder: Path) -> float:
    """CPU seconds of `rrdtool update` through rrdcached, an update per pair and round, until all is in the files."""
    with _rrdcached(feed, folder) as (line, daemon):
        address = f"unix:{folder / 'rrd.sock'}"
        before = cpu_ns(daemon.pid)
        command = [need("rrdtool"), "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder, env=_environment()
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
    with _daemon(command, folder / "rrdcached.log", folder) as child, _dialled(child, address) as line:
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
