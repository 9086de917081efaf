"""Prometheus over TLS: started, given samples by remote write, asked over a connection that stays open.

Must not know: pingmon, what is measured.
"""

from __future__ import annotations

import http.client
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import free_port, make_pki

from .facts import cpu_ns
from .peers import NoFiguresError, need, spawned

METRIC = "ping_rtt_seconds"
_UP_S = 60.0
_REST_S = 90.0
_LOST = float("nan")
_HEADERS = {
    "Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}  # fmt: skip


@dataclass(frozen=True)
class Prometheus:
    """One that runs, and the connection to it."""

    pid: int
    connection: http.client.HTTPSConnection

    def write(self, series: Sequence[bytes], rounds: Sequence[Sequence[int]], times_ms: Sequence[int]) -> None:
        """One request: of each round one sample (us, < 0 lost) per series. NoFiguresError where it is refused."""
        columns = zip(*rounds, strict=True)
        stamps = [b"\x10" + _varint(at_ms) for at_ms in times_ms]
        parts = [_one(name, column, stamps) for name, column in zip(series, columns, strict=True)]
        self.connection.request("POST", "/api/v1/write", _snappy(b"".join(parts)), _HEADERS)
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != 204:
            raise NoFiguresError(f"prometheus answered {answer.status}: {said[:200]!r}")

    def come_to_rest(self) -> None:
        """Wait until it has compacted what it was given: 2 s on end with less than 20 ms of work."""
        deadline = time.monotonic() + _REST_S
        while True:
            before = cpu_ns(self.pid)
            time.sleep(2.0)
            if cpu_ns(self.pid) - before < 20_000_000:
                return
            if time.monotonic() > deadline:
                raise NoFiguresError(f"prometheus does not come to rest within {_REST_S:g} s")


@contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """An empty one that keeps its data in `folder`; NoFiguresError where there is none."""
    program = need("prometheus")
    folder.mkdir(exist_ok=True)
    make_pki(folder)
    port = free_port()
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    web = folder / "web.yml"
    web.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key, min_version: TLS13}\n")
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--web.config.file={web}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver", "--log.level=warn",
    ]  # fmt: skip
    context = ssl.create_default_context(cafile=str(folder / "ca" / "ca.pem"))
    with spawned(command, folder / "prometheus.log", folder) as child:
        yield Prometheus(child.pid, _connected(child, port, context))


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


def labels(agent: str, target: str) -> bytes:
    """What names a series, as remote write has it."""
    pairs = (("__name__", METRIC), ("agent", agent), ("target", target))
    return b"".join(b"\x0a" + _varint(len(pair)) + pair for pair in (_text(1, k) + _text(2, v) for k, v in pairs))


def _one(name: bytes, column: Sequence[int], stamps: Sequence[bytes]) -> bytes:
    """A TimeSeries; a sample is a double and a time of six bytes (any of our days), which makes 18 with its head."""
    values = struct.pack(f"<{len(column)}d", *(us / 1e6 if us >= 0 else _LOST for us in column))
    samples = [b"\x12\x10\x09" + values[8 * i : 8 * i + 8] + stamp for i, stamp in enumerate(stamps)]
    body = name + b"".join(samples)
    return b"\x0a" + _varint(len(body)) + body


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
