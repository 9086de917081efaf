"""`make bench-probe`: processor time, false loss and memory of the whole agent and of its peers, side by side.

One run, one namespace, passes that interleave all programs. RESULT keys without a path are for loopback; `_20ms` are
the same behind the responder; `lost` counts both. Must not know: how any program works.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .exporters import blackbox_exporter, smokeping_prober
from .facts import machine, publish, spread, version_of
from .ours import Measured, OurAgent
from .peers import NoFiguresError, find, fping_burst, fping_paced, icmplib_all, icmplib_default
from .world import World, addresses

Runner = Callable[[World, Path, list[str], int], Measured]
PATHS = ("lo", "20ms")
_CEILING_MS = 500.0  # ten percent of a core over a round of 5 s
_SUSTAINED = 24  # rounds: that many the metrics of targets wait for at most
_SLOW = ("icmplib_default", "smokeping_prober", "blackbox")  # left out where a minute is all there is
_UP, _DOWN = (50_000, 75_000, 100_000), (35_000, 25_000, 15_000, 10_000)  # targets tried for the peak


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A program, where it is worth its time, and how many rounds each pass measures."""

    key: str
    run: Runner
    rounds: int = 2
    paths: tuple[str, ...] = PATHS
    largest: int = 1_000_000


def ours(world: World, folder: Path, targets: list[str], rounds: int, interval_s: float = 5.0) -> Measured:
    """The whole agent."""
    agent = OurAgent(world, folder, targets, interval_s)
    try:
        return agent.measure(rounds)
    finally:
        agent.close()


def contestants(interval_s: float, skip: set[str]) -> list[Contestant]:
    """Everybody but those in `skip`; `interval_s` is the agent's."""
    everybody = (
        Contestant(key="pingmon", run=partial(ours, interval_s=interval_s)),
        Contestant(key="fping", run=fping_paced),
        Contestant(key="fping_burst", run=fping_burst),
        Contestant(key="icmplib", run=icmplib_all),
        Contestant(key="icmplib_default", run=icmplib_default, rounds=1, paths=("lo",)),
        # Saturated at 1,000 already, so there is no figure to have at 10,000.
        Contestant(key="smokeping_prober", run=smokeping_prober, paths=("lo",), largest=1_000),
        Contestant(key="blackbox", run=blackbox_exporter, rounds=1, paths=("lo",)),
    )
    return [one for one in everybody if one.key not in skip]


@dataclass
class Cell:
    """All passes of one program at one size behind one path."""

    cpu_ms: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    probes: int = 0
    lost: int = 0
    disturbed: int = 0

    def add(self, measured: Measured) -> None:
        """One more pass; memory is that of the largest."""
        self.cpu_ms += measured.cpu_ms
        self.memory = max(self.memory, measured.memory, key=lambda memory: memory.get("rss_mib", 0))
        self.probes += measured.probes
        self.lost += measured.lost
        self.disturbed += measured.disturbed

    @property
    def median_ms(self) -> float:
        """CPU ms per round."""
        return statistics.median(self.cpu_ms)

    def as_json(self) -> dict[str, Any]:
        """With the spread."""
        facts = {"cpu_ms_per_round": spread(self.cpu_ms), "probes": self.probes, "lost": self.lost, **self.memory}
        return {**facts, "disturbed_rounds": self.disturbed} if self.disturbed else facts


Cells = dict[tuple[str, int, str], Cell]


def run_pass(world: World, sizes: list[int], everybody: list[Contestant], cells: Cells) -> None:
    """Every program once at every size behind every path; what does not run is noted and left out."""
    for size in sizes:
        for path in PATHS:
            for one in [one for one in everybody if path in one.paths and size <= one.largest]:
                try:
                    measured = _once(world, one.run, addresses(path, size), one.rounds)
                except NoFiguresError as err:
                    print(f"note: no figures for {one.key} with {size} targets: {err}", flush=True)
                    continue
                cell = cells.setdefault((one.key, size, path), Cell())
                cell.add(measured)
                _show(one.key, size, path, cell)


def _once(world: World, run: Runner, targets: list[str], rounds: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return run(world, Path(folder), targets, rounds)


def _show(key: str, size: int, path: str, cell: Cell) -> None:
    low, high = min(cell.cpu_ms), max(cell.cpu_ms)
    print(
        f"{size:>6} {path:<5} {key:<17} {cell.median_ms:9.1f} ms/round ({low:.1f}-{high:.1f}, n={len(cell.cpu_ms)})"
        f"  lost {cell.lost}/{cell.probes}  rss {cell.memory.get('rss_mib', 0):.1f} MiB",
        flush=True,
    )


def result(cells: Cells, size: int) -> dict[str, float]:
    """The keys of RESULT probe-SIZE; a peer that was not there leaves its keys out."""
    mine = {path: cells["pingmon", size, path] for path in PATHS}
    keys: dict[str, float] = {
        "cpu_ms_per_round": mine["lo"].median_ms,
        "lost": sum(cell.lost for cell in mine.values()),
    }
    for path, suffix in (("lo", ""), ("20ms", "_20ms")):
        for (key, count, where), theirs in cells.items():
            if key != "pingmon" and count == size and where == path:
                keys[f"cpu_vs_{key}{suffix}"] = mine[path].median_ms / theirs.median_ms
    keys["cpu_ms_per_round_20ms"] = mine["20ms"].median_ms
    keys["rss_mib"] = max(cell.memory["rss_mib"] for cell in mine.values())
    burst = [cell for (key, count, _), cell in cells.items() if key == "fping_burst" and count == size]
    if burst:
        keys["fping_burst_lost_ratio"] = sum(c.lost for c in burst) / sum(c.probes for c in burst)
    return keys


def climb(world: World, rounds: int) -> tuple[int, dict[str, Any]]:
    """The most targets, of those tried one by one, that cost less than a tenth of a core with none lost."""
    steps: dict[str, Any] = {}

    def good(count: int) -> bool:
        cell = Cell()
        cell.add(_once(world, ours, addresses("lo", count), rounds))
        _show("pingmon", count, "lo", cell)
        steps[str(count)] = cell.as_json()
        return cell.median_ms < _CEILING_MS and cell.lost == 0

    best = 0
    for count in _UP:
        if not good(count):
            break
        best = count
    return best or next(filter(good, _DOWN), 0), steps


def sustain(world: World, size: int) -> dict[str, Any]:
    """The mean over two minutes, so that what the agent puts off and does for many rounds at once is in it as well."""
    measured = _once(world, ours, addresses("lo", size), _SUSTAINED)
    facts = {"cpu_ms_per_round_mean": round(statistics.fmean(measured.cpu_ms), 3), "lost": measured.lost}
    print(f"{size:>6} lo    pingmon, {_SUSTAINED} rounds {facts}", flush=True)
    return {**facts, "cpu_ms_per_round": spread(measured.cpu_ms), **measured.memory}


def main() -> int:
    """The whole bench; 1 with a sentence where it cannot run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", help="default: 100 1000 10000, with --quick 1000")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one pass without exporters, no search for the peak")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between the agent's rounds (default 5)")
    parser.add_argument("--skip", nargs="*", default=[], help="peers to leave out, by the names of the table")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("bench-probe needs root for its network namespaces; run `sudo make bench-probe`", file=sys.stderr)
        return 1
    sizes = args.sizes or ([1_000] if args.quick else [100, 1_000, 10_000])
    facts, began, cells = machine(), time.monotonic(), Cells()
    everybody = contestants(args.interval, {*args.skip, *(_SLOW if args.quick else ())})
    with World() as world:
        for _ in range(1 if args.quick else args.passes):
            run_pass(world, sizes, everybody, cells)
        peak, steps = (0, {}) if args.quick else climb(world, 3)
        long_run = {} if args.quick else sustain(world, max(sizes))
    took = {"seconds": round(time.monotonic() - began), "load_after": os.getloadavg()[0]}
    facts |= took | {"fping": version_of(find("fping") or "fping", "-v")}
    for size in sizes:
        found = {f"{key} {path}": cell.as_json() for (key, n, path), cell in cells.items() if n == size}
        keys = result(cells, size)
        if size == max(sizes) and steps:
            mean = long_run["cpu_ms_per_round_mean"]
            keys |= {"cpu_ms_per_round_sustained": mean, "peak_targets_10pct": peak}
            keys["lost"] += long_run["lost"]
            found |= {"pingmon more targets, lo": steps, "pingmon two minutes, lo": long_run}
        publish(f"probe-{size}", keys, {"machine": facts, "measured": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
