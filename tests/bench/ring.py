"""What the agent's ring costs: `python -m tests.bench.ring`. Appending by kind of buffer, size and reading back of 30
minutes. Prints RESULT lines; needs /dev/shm (tmpfs) and writes below the current directory (disk).
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring

TMPFS, DISK = Path("/dev/shm"), Path.cwd()
ROUNDS, MAX_BYTES = 400, 256 << 20


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def column(width: int) -> array[int]:
    """Samples as a round has them."""
    return array("i", [random.randrange(100_000) for _ in range(width)])


def in_a_folder(parent: Path | None, work: Callable[[Path | None], float]) -> float:
    """`work` on a directory that is gone afterwards; None where there is to be none."""
    if parent is None:
        return work(None)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        return work(Path(folder) / "ring")


def append_us(width: int, parent: Path | None, durable: bool = False) -> float:
    """Median microseconds of one append."""

    def work(directory: Path | None) -> float:
        journal = Journal(directory, MAX_BYTES, durable=durable) if directory else None
        ring, samples, took = Ring(time.monotonic, journal=journal), column(width), []
        for _ in range(ROUNDS):
            began = time.perf_counter_ns()
            ring.append(started_ms=1, revision=1, samples=samples, disturbed=False)
            took.append(time.perf_counter_ns() - began)
            time.sleep(0.005 if durable else 0.0)  # so that flushes come between
        ring.close()
        return statistics.median(took) / 1000

    return in_a_folder(parent, work)


def half_an_hour(directory: Path | None) -> float:
    """30 minutes of 1,000 targets each second: prints what they take, and returns 0."""
    assert directory is not None
    now = [1000.0]
    before, journal = resident_mib(), Journal(directory, MAX_BYTES)
    ring = Ring(lambda: now[0], journal=journal)
    for _ in range(1900):
        ring.append(started_ms=1, revision=1, samples=column(1000), disturbed=False)
        now[0] += 1
    grown, files = resident_mib() - before, len(list(directory.glob("*.ring")))
    ring.close()
    began = time.perf_counter()
    Ring(lambda: now[0], journal=Journal(directory, MAX_BYTES)).close()
    read_ms = (time.perf_counter() - began) * 1000
    print(f"RESULT ring-30min files={files} mib={journal.size / 2**20:.1f} rss_mib={grown:.1f} read_ms={read_ms:.0f}")
    return 0.0


def main() -> None:
    """All of it, in a few seconds."""
    for width in (200, 1000, 10_000):
        kinds = {
            "memory": append_us(width, None),
            "tmpfs": append_us(width, TMPFS),
            "disk": append_us(width, DISK),
            "fsync": append_us(width, DISK, durable=True),
        }
        print(f"RESULT ring-append-{width}", *(f"{kind}_us={took:.0f}" for kind, took in kinds.items()))
    in_a_folder(TMPFS, half_an_hour)


if __name__ == "__main__":
    main()
