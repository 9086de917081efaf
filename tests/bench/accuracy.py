"""`make bench-accuracy`: reported round-trip times minus the kernel's own stamps on the prober's veth.

Idle and with four busy loops, answered by the kernel at once and by the responder after 20 ms, 1,000 targets. All
programs one after another in each cell. Must not know: how any program measures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .capture import Capture, Trip
from .facts import machine, percentile, publish, version_of
from .ours import OurAgent
from .peers import NoFiguresError, find, fping_command, icmplib_program, need, running
from .world import World, addresses, busy_loops

PATHS, LOADS = ("0ms", "20ms"), ("idle", "loaded")
ROUNDS = 3
BUSY_LOOPS = 4
INTERVAL_S = 2.0
_PERIOD_S = 1.5
_PINGS_AT_ONCE = 100
Reported = list[tuple[str, int, float]]  # (address, which of its echoes, us)
Trips = Mapping[str, Sequence[Trip]]
Runner = Callable[[World, Path, list[str], Callable[[], Trips]], list[float]]


def errors(reported: Reported, trips: Trips) -> list[float]:
    """us off, for each reported time whose echo was captured."""
    return [
        abs(us - trips[address][nth].rtt_ns / 1000)
        for address, nth, us in reported
        if address in trips and nth < len(trips[address])
    ]


def ours(world: World, folder: Path, targets: list[str], captured: Callable[[], Trips]) -> list[float]:
    """The whole agent; what counts is what arrives at the server."""
    agent = OurAgent(world, folder, targets, INTERVAL_S)
    try:
        agent.wait_rounds(ROUNDS + 1)
        rounds = agent.rounds()[1 : ROUNDS + 1]  # the first round is start-up
    finally:
        agent.close()
    trips, found = captured(), []
    for row in rounds:
        begun = row["t"] * 1_000_000 - 2_000_000  # t is in whole ms
        for address, us in zip(targets, row["rtt"], strict=True):
            trip = next((trip for trip in trips.get(address, ()) if trip.sent_ns >= begun), None)
            if us >= 0 and trip is not None and trip.sent_ns < begun + INTERVAL_S * 0.8e9:
                found.append(abs(us - trip.rtt_ns / 1000))
    return found


def fping(world: World, folder: Path, targets: list[str], captured: Callable[[], Trips]) -> list[float]:
    """fping paced over one second."""
    command = fping_command(targets, folder, ROUNDS, 1000 / len(targets), _PERIOD_S)
    with (folder / "fping.out").open("w+") as out, running(world, command, stderr=out, stdout=out) as child:
        child.wait(60)
        out.seek(0)
        lines = [line.split(" : ") for line in out if " : " in line]
    return _in_order({address.strip(): times.split() for address, times in lines}, captured())


def _in_order(times: Mapping[str, Sequence[str]], trips: Trips) -> list[float]:
    """A lost echo (`-`) was captured as sent but has no trip, so only replies are counted."""
    reported: Reported = []
    for address, row in times.items():
        replies = [float(ms) * 1000 for ms in row if ms != "-"]
        reported += [(address, nth, us) for nth, us in enumerate(replies)]
    return errors(reported, trips)


def ping(world: World, _: Path, targets: list[str], captured: Callable[[], Trips]) -> list[float]:
    """A hundred ping(8) at once, as scripts do it."""
    program = need("ping", "iputils-ping")
    times: dict[str, list[str]] = {}
    for _round in range(ROUNDS):
        children = [
            (address, world.start([program, "-n", "-c", "1", "-W", "2", address], stdout=subprocess.PIPE, text=True))
            for address in targets[:_PINGS_AT_ONCE]
        ]
        for address, child in children:
            said, _err = child.communicate(timeout=30)
            times.setdefault(address, []).extend(re.findall(r"time=(\S+)", said) or ["-"])
    return _in_order(times, captured())


def icmplib(
    world: World, folder: Path, targets: list[str], captured: Callable[[], Trips], concurrent: int
) -> list[float]:
    """icmplib's async_multiping."""
    times: dict[str, list[str]] = {address: [] for address in targets}
    with icmplib_program(world, folder, targets, concurrent, privileged=False) as (_, go):
        for _round in range(ROUNDS):
            for address, ms in go().items():
                times[address].append("-" if ms is None else str(ms))
    return _in_order(times, captured())


def icmplib_50(world: World, folder: Path, targets: list[str], captured: Callable[[], Trips]) -> list[float]:
    """50 at once as it comes, but unprivileged: privileged, each socket gets every reply and the times are worse."""
    return icmplib(world, folder, targets, captured, 50)


def icmplib_all(world: World, folder: Path, targets: list[str], captured: Callable[[], Trips]) -> list[float]:
    """Every target at once, unprivileged."""
    return icmplib(world, folder, targets, captured, len(targets))


RUNNERS: dict[str, Runner] = {
    "pingmon": ours,
    "fping": fping,
    "ping": ping,
    "icmplib_50": icmplib_50,
    "icmplib_all": icmplib_all,
}
Samples = dict[tuple[str, str, str], list[float]]  # (load, path, program)


def run_pass(world: World, capture: Capture, count: int, load: str, skip: set[str], samples: Samples) -> None:
    """Every program once behind both paths."""
    with busy_loops(BUSY_LOOPS) if load == "loaded" else contextlib.nullcontext():
        for path in PATHS:
            for name, run in RUNNERS.items():
                if name in skip:
                    continue
                capture.trips()
                try:
                    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                        found = run(world, Path(folder), addresses(path, count), capture.trips)
                except NoFiguresError as err:
                    skip.add(name)
                    print(f"note: no figures for {name}: {err}", flush=True)
                    continue
                samples.setdefault((load, path, name), []).extend(found)
                p50, p99 = percentile(found, 0.5), percentile(found, 0.99)
                print(f"{load:<6} {path:<5} {name:<16} p50 {p50:10.1f}  p99 {p99:10.1f} us  n={len(found)}", flush=True)


def result(samples: Samples, load: str) -> dict[str, float]:
    """The worse of both paths for each program; of icmplib's two ways the better one."""
    worst: dict[str, dict[str, float]] = {}
    for name in RUNNERS:
        both = [samples[key] for path in PATHS if (key := (load, path, name)) in samples]
        if both:
            worst[name] = {f"p{share}": max(percentile(one, share / 100) for one in both) for share in (50, 99)}
    keys = {"err_p50_us": worst["pingmon"]["p50"], "err_p99_us": worst["pingmon"]["p99"]}
    for name in ("fping", "ping"):
        if name in worst:
            keys |= {f"{name}_err_p50_us": worst[name]["p50"], f"{name}_err_p99_us": worst[name]["p99"]}
    theirs = [worst[name] for name in ("icmplib_50", "icmplib_all") if name in worst]
    keys |= {f"icmplib_err_{p}_us": min(one[p] for one in theirs) for p in ("p50", "p99")}
    return keys


def _details(samples: Samples, load: str) -> dict[str, Any]:
    return {
        f"{name} {path}": {
            **{f"err_p{share}_us": round(percentile(found, share / 100), 3) for share in (50, 90, 99)},
            "err_max_us": round(max(found), 3),
            "n": len(found),
        }
        for (when, path, name), found in samples.items()
        if when == load and found
    }


def main() -> int:
    """The whole bench; 1 with a sentence where it cannot run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1_000)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one pass")
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=LOADS)
    parser.add_argument("--skip", nargs="*", default=[], choices=[*RUNNERS][1:])
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("bench-accuracy needs root for its network namespaces; run `sudo make bench-accuracy`", file=sys.stderr)
        return 1
    facts, began = machine(), time.monotonic()
    samples: Samples = {}
    skip = set(args.skip)
    with World() as world, contextlib.closing(Capture(world)) as capture:
        for _ in range(1 if args.quick else args.passes):
            for load in args.loads:
                run_pass(world, capture, args.targets, load, skip, samples)
    facts |= {"seconds": round(time.monotonic() - began), "targets": args.targets}
    facts |= {"fping": version_of(find("fping") or "fping", "-v"), "ping": version_of(find("ping") or "ping", "-V")}
    for load in args.loads:
        details = {"machine": facts, "error_us": _details(samples, load)}
        publish(f"accuracy-{load}", result(samples, load), details)
    return 0


if __name__ == "__main__":
    sys.exit(main())
