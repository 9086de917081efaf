"""The second half of `make bench-ingest`: bytes per sample after compaction, beside Prometheus' blocks of the same.

Two hours of pairs with jitter of four kinds, drift, spikes and losses, at microsecond resolution. Starts are exactly
5 s apart, as Prometheus likes it best. Every sample is read back and compared. Must not know: how any store works.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from pingmon.store.compaction import HOUR_MS
from pingmon.store.rounds import SqliteRounds, StoredRound

from .facts import machine, publish, version_of
from .feed import INTERVAL_MS
from .peers import NoFiguresError, find, need

HOURS = 2  # a block of Prometheus
ROUNDS = HOURS * HOUR_MS // INTERVAL_MS
JITTERS_US = (15, 60, 200, 600)
BEGIN_MS = 500_000 * HOUR_MS
Column = list[int]


def column(sigma_us: float, chance: random.Random) -> Column:
    """One pair: gamma jitter above a base that drifts, 0.3 % spikes, 0.2 % lost (-1); us."""
    base, found = chance.uniform(200, 20_000), []
    for _ in range(ROUNDS):
        base += chance.gauss(0, sigma_us / 50)
        value = base + chance.gammavariate(2, sigma_us / 2**0.5)
        if chance.random() < 0.003:
            value += chance.expovariate(1 / (20 * sigma_us))
        found.append(-1 if chance.random() < 0.002 else max(1, round(value)))
    return found


def ours(columns: list[Column], folder: Path) -> dict[str, float]:
    """What the sample store takes for them once all is compacted; AssertionError where a value came back changed."""
    folder.mkdir()
    store = SqliteRounds(folder / "samples.db")
    empty = _used(store)  # tables without a row: the same 100 KB whatever comes
    rows = [array("i", values) for values in zip(*columns, strict=True)]
    for first in range(0, ROUNDS, 20):
        numbers = range(first, min(first + 20, ROUNDS))
        store.write([_round(number, rows[number]) for number in numbers], {(1, "e"): numbers[-1] + 1}, BEGIN_MS)
    raw, began = _used(store) - empty, time.process_time()
    for part in store.compactable(BEGIN_MS + HOURS * HOUR_MS):
        while store.compact(part):
            pass
    seconds, size = time.process_time() - began, _used(store) - empty
    for at, expected in enumerate(columns):
        found = [us for _, us, _ in store.pair(1, {1: (at,)}, 0, 2 * BEGIN_MS)]
        assert found == expected, f"column {at} came back changed"
    store.close()
    count = ROUNDS * len(columns)
    return {
        "bytes_per_sample": size / count,
        "raw_bytes_per_sample": raw / count,
        "compaction_cpu_s_per_msample": seconds / count * 1e6,
    }


def _round(number: int, samples: array[int]) -> StoredRound:
    started = BEGIN_MS + number * INTERVAL_MS
    return StoredRound(
        agent_no=1,
        epoch="e",
        seq=number + 1,
        started_ms=started,
        revision=1,
        flags=0,
        received_ms=started + 1_100 + number * 37 % 100,
        samples=samples,
    )


def _used(store: SqliteRounds) -> int:
    """Bytes of the pages in use; free ones are used again."""
    pages, free, size = (
        store._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def prometheus(columns: list[Column], folder: Path) -> float:
    """Bytes per sample of the blocks that Prometheus' own tool makes of them: chunks and index."""
    folder.mkdir()
    with (folder / "samples.om").open("w") as out:
        out.write("# TYPE ping_rtt_seconds gauge\n")
        for at, values in enumerate(columns):
            labels = f'ping_rtt_seconds{{agent="probe-0",target="target-{at}"}}'
            for number, us in enumerate(values):
                value = f"{us / 1e6:.6f}" if us >= 0 else "NaN"
                out.write(f"{labels} {value} {(BEGIN_MS + number * INTERVAL_MS) / 1000:.3f}\n")
        out.write("# EOF\n")
    command = [need("promtool", "prometheus"), "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples.om")]
    done = subprocess.run([*command, str(folder / "blocks")], capture_output=True, text=True, check=False)
    blocks = [file for file in (folder / "blocks").rglob("*") if file.is_file()]
    if done.returncode or not blocks:
        raise NoFiguresError(f"promtool failed: {(done.stderr or done.stdout)[-300:]}")
    return sum(file.stat().st_size for file in blocks) / (ROUNDS * len(columns))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 targets instead of 1,000")
    parser.add_argument("--targets", type=int, default=0, help="instead of these")
    args = parser.parse_args()
    targets = args.targets or (100 if args.quick else 1_000)
    chance = random.Random(1)
    columns = [column(JITTERS_US[at % len(JITTERS_US)], chance) for at in range(targets)]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        keys = ours(columns, folder / "mixed")
        by_jitter: dict[str, Any] = {
            f"jitter_{sigma}_us": ours(columns[at :: len(JITTERS_US)], folder / str(sigma))
            for at, sigma in enumerate(JITTERS_US)
        }
        try:
            theirs = prometheus(columns, folder / "prometheus")
            keys |= {"size_vs_prometheus": keys["bytes_per_sample"] / theirs, "prometheus_bytes_per_sample": theirs}
        except NoFiguresError as err:
            print(f"note: no figures for prometheus: {err}", flush=True)
    for sigma, figures in by_jitter.items():
        print(f"{sigma}: {figures['bytes_per_sample']:.3f} bytes per sample", flush=True)
    program = find("promtool")
    details = {"machine": machine(), "targets": targets, "rounds": ROUNDS, "measured": by_jitter}
    details |= {"promtool": version_of(program, "--version") if program else None}
    publish("store", keys, details)


if __name__ == "__main__":
    main()
