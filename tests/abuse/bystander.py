"""An honest agent beside an attack, in a process of its own: 12 samples a second, each acknowledged and looked up.

`python -m tests.abuse.bystander PORT CA PASSPHRASE HOSTNAME` reports until its standard input closes, then prints what
it sent and how long acknowledgements took.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .wire import Client, hello, sample

if TYPE_CHECKING:
    from tests.support.processes import Server

EVERY_S, SAMPLES, AT_LEAST_S = 0.25, 3, 1.5  # some attacks are over sooner
ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """What a bystander saw, filled in at its end: times of its acknowledged samples (unix ms), waits in ms."""

    acked: list[int] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """99 % of the acknowledgements came within this."""
        return sorted(self.waits_ms)[min(len(self.waits_ms) - 1, int(len(self.waits_ms) * 0.99))]


def report(port: int, ca_file: str, passphrase: str, hostname: str) -> None:
    """The process: one line of JSON once standard input has closed."""
    ended, seen = threading.Event(), Seen()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with Client(port, ca_file).opened() as client:
        assert client.ask("handshake", hello(passphrase, hostname))["state"] == "approved"
        print("ready", flush=True)
        at_ms = time.time_ns() // 1_000_000
        while not ended.is_set():
            began = time.monotonic()
            at_ms = max(at_ms + SAMPLES, time.time_ns() // 1_000_000)
            times = [at_ms + i for i in range(SAMPLES)]
            answer = client.ask("monitoring_data", [sample(1.0, at) for at in times])
            seen.waits_ms.append((time.monotonic() - began) * 1000)
            if answer.get("ok") is True:
                seen.acked += times
            else:
                seen.refused.append(str(answer))
            ended.wait(max(0.0, EVERY_S - (time.monotonic() - began)))
    print(json.dumps(vars(seen)))


@contextmanager
def bystander(server: Server, passphrase: str, hostname: str = "bystander") -> Iterator[Seen]:
    """An approved agent that reports while the block runs; then nothing of it may be lost or stored twice."""
    argv = [sys.executable, "-m", "tests.abuse.bystander", str(server.port), str(server.ca_file), passphrase, hostname]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    seen = Seen()
    try:
        assert process.stdout.readline() == "ready\n", "the bystander could not report"
        began = time.monotonic()
        yield seen
        time.sleep(max(0.0, AT_LEAST_S - (time.monotonic() - began)))
        process.stdin.close()
        vars(seen).update(json.loads(process.stdout.readline() or "{}"))
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
    print(f"BYSTANDER samples={len(seen.acked)} ack_p99_ms={seen.p99_ms:.0f} ack_max_ms={max(seen.waits_ms):.0f}")
    check(server, seen)


def check(server: Server, seen: Seen) -> None:
    """0 lost, 0 doubled, 0 refused."""
    assert seen.acked, "the bystander was never heard"
    assert seen.refused == []
    data = server.directory / "data"
    with closing(sqlite3.connect(f"file:{data / 'samples.db'}?mode=ro", uri=True)) as database:
        database.execute("ATTACH ? AS directory", (f"file:{data / 'pingmon.db'}?mode=ro",))
        rows = database.execute(
            "SELECT started_ms FROM rounds JOIN directory.agents ON no = agent_no WHERE hostname = 'bystander'"
        )
        stored = Counter(row[0] for row in rows)
    lost = [at for at in seen.acked if stored[at] == 0]
    doubled = [at for at in seen.acked if stored[at] > 1]
    assert (lost, doubled) == ([], [])


if __name__ == "__main__":
    report(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
