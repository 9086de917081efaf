"""Fault 11: the server's disk is full, and has room again later."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .fault import Fault, Findings
from .guards import plan
from .oracle import acked_too_early
from .world import Run, World

SIZE_MIB = 24
TOLD_S, RESUMED_S = 10.0, 10.0
ERRORS = "pingmon_server_storage_errors_total"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own at `place`, in memory, gone afterwards."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing more fits; the file that did it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    continue
    return ballast


def run(run: Run) -> Findings:
    """Full, a while of that, room again."""
    found = Findings()
    with small_disk(run.home / "server" / "data"), World(run, plan=plan(run)) as world:
        world.start()
        ballast = fill(world.server.data)
        run.journal.note("disk full")
        _while_full(run, world, found)
        ballast.unlink()
        run.journal.note("room again")
        freed = time.monotonic()
        while not any(at > freed and agent.delivered for agent in world.fleet.agents for at, _ in agent.delivery.waits):
            assert time.monotonic() - freed < 60, "no acknowledgement within a minute of room"
            time.sleep(0.02)
        resumed = time.monotonic() - freed
        world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
    found.figures["resumed_s"] = resumed
    found.require(resumed <= RESUMED_S, f"the first acknowledgement came {resumed:.1f} s after there was room")
    return found


def _while_full(run: Run, world: World, found: Findings) -> None:
    began, lasts, visitor = time.monotonic(), run.scale(30, 8), world.server.visitor()
    told, unserved, not_ready = 0.0, 0, 0.0
    while time.monotonic() - began < lasts:
        if not told and world.server.metric(ERRORS) > 0:
            told = time.monotonic() - began
        unserved += visitor.request("/login")[0] != 200
        if not not_ready and visitor.request("/-/ready")[0] != 200:
            not_ready = time.monotonic() - began
        time.sleep(0.5)
    early = acked_too_early(run.home, world.server.data)
    child = world.server.child
    found.figures |= {
        "full_s": lasts,
        "told_by_metric_s": told,
        "told_by_ready_s": not_ready,
        "acked_early": early,
        "told_to_wait": sum(agent.delivery.told_to_wait for agent in world.fleet.agents),
    }
    found.require(0 < told <= TOLD_S, f"{ERRORS} told of it after {told:.1f} s (0: never), {TOLD_S:g} are allowed")
    found.require(0 < not_ready <= TOLD_S, f"/-/ready told of it after {not_ready:.1f} s (0: never)")
    found.require(unserved == 0, f"the sign-in page was not served {unserved} times")
    found.require(early == 0, f"{early} rounds were acknowledged though they could not be stored")
    found.require(child is not None and child.running, "the server ended")


FAULT = Fault(
    number=11,
    title="disk full (server)",
    inject=f"the data directory is a file system of {SIZE_MIB} MiB; a file fills it for 30 s and goes",
    passes="the process lives and serves the sign-in page, `/-/ready` and a metric tell within 10 s, nothing is "
    "acknowledged that is not stored, acknowledgements again within 10 s of room: nothing lost, doubled, changed.",
    run=run,
    guards={"honest-errors": "a commit that failed counts as done"},
    root=True,
)
