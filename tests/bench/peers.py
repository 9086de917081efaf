"""fping and icmplib, run the way their authors mean them to be, and what each used per round.

They have no work between rounds, so their rounds follow each other faster than every 5 s (warmer caches: to their
advantage). Must not know: the agent.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .facts import cpu_ns, memory_mib
from .ours import Measured
from .world import ROOT, World, end


class NoFiguresError(Exception):
    """A peer is not here or does not run; the text says what to do, and the bench goes on without it."""


FETCHED = ROOT / "build" / "peers"
WINDOW_S = 1.0  # the agent's default probe.window_ms
_PACED_PERIOD_S, _BURST_PERIOD_S = 2.5, 2.0


def find(program: str) -> str | None:
    """The program that `.ci/setup.sh peers` fetched, else the system's, else None."""
    for folder in ("usr/bin", "bin", "usr/sbin", "sbin"):
        if (path := FETCHED / folder / program).exists():
            return str(path)
    return shutil.which(program)


def need(program: str, package: str = "") -> str:
    """The same, or NoFiguresError."""
    found = find(program)
    if found is None:
        raise NoFiguresError(
            f"{program} is missing; run `sh .ci/setup.sh peers` or install the package {package or program}"
        )
    return found


@contextmanager
def running(world: World, command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    child = world.start(command, **options)
    try:
        yield child
    finally:
        end(child)


def environment() -> dict[str, str]:
    """For programs that were fetched: where the libraries are that were fetched with them."""
    libraries = ":".join(str(path) for path in sorted(FETCHED.glob("usr/lib/*-linux-gnu*")))
    return {"LD_LIBRARY_PATH": libraries, "PATH": "/usr/bin:/bin"}


@contextmanager
def spawned(command: list[str], log: Path, folder: Path) -> Iterator[subprocess.Popen[Any]]:
    """A store that runs in no namespace, its output in `log`; ended by SIGTERM, and waited for."""
    with log.open("w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder, env=environment())
    try:
        yield child
    finally:
        child.terminate()
        child.wait(60)


def fping_paced(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """fping with its sends spread over the same window as the agent's."""
    return _fping(world, folder, addresses, rounds, WINDOW_S * 1000 / len(addresses), _PACED_PERIOD_S)


def fping_burst(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """fping with no pause between sends."""
    return _fping(world, folder, addresses, rounds, 0, _BURST_PERIOD_S)


def fping_command(addresses: list[str], folder: Path, count: int, pause_ms: float, period_s: float) -> list[str]:
    """`count` rounds, quiet, with each round trip in the summary."""
    targets = folder / "fping.targets"
    targets.write_text("\n".join(addresses) + "\n")
    return [
        need("fping"),
        "-q",
        "-C",
        str(count),
        "-p",
        f"{period_s * 1000:g}",
        "-i",
        f"{pause_ms:g}",
        "-f",
        str(targets),
    ]


def _fping(world: World, folder: Path, addresses: list[str], rounds: int, pause_ms: float, period_s: float) -> Measured:
    found = Measured()
    command = fping_command(addresses, folder, rounds + 2, pause_ms, period_s)  # it ends with the last one's replies
    with (folder / "fping.out").open("w+") as out, running(world, command, stderr=out, stdout=out) as child:
        began = time.monotonic()
        used = 0
        for number in range(rounds + 1):  # the first is start-up
            time.sleep(max(0.0, began + (number + 0.8) * period_s - time.monotonic()))
            now = cpu_ns(child.pid)
            found.cpu_ms.append((now - used) / 1e6)
            used = now
        found.cpu_ms.pop(0)
        found.memory = memory_mib(child.pid)
        child.wait(period_s + 10)
        out.seek(0)
        times = [line.rpartition(" : ")[2].split() for line in out if " : " in line]
    found.probes = sum(map(len, times))
    found.lost = sum(row.count("-") for row in times)
    return found


def icmplib_all(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """async_multiping, every target at once, unprivileged (privileged sockets each get every packet: far slower)."""
    return _icmplib(world, folder, addresses, rounds, len(addresses), privileged=False)


def icmplib_default(world: World, folder: Path, addresses: list[str], rounds: int) -> Measured:
    """async_multiping as it comes: 50 at once, privileged."""
    return _icmplib(world, folder, addresses, rounds, 50, privileged=True)


@contextmanager
def icmplib_program(
    world: World, folder: Path, addresses: list[str], concurrent: int, *, privileged: bool
) -> Iterator[tuple[int, Callable[[], dict[str, float | None]]]]:
    """(pid, a function that runs one round and returns ms or None by address)."""
    (folder / "icmplib.json").write_text(json.dumps(addresses))
    command = [sys.executable, "-m", "tests.bench.icmplib_rounds", str(folder / "icmplib.json")]
    command += [str(concurrent), str(int(privileged))]
    with running(world, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout
        stdout.readline()

        def go() -> dict[str, float | None]:
            stdin.write("\n")
            stdin.flush()
            answered: dict[str, float | None] = json.loads(stdout.readline())
            return answered

        yield child.pid, go


def _icmplib(
    world: World, folder: Path, addresses: list[str], rounds: int, concurrent: int, *, privileged: bool
) -> Measured:
    found = Measured()
    with icmplib_program(world, folder, addresses, concurrent, privileged=privileged) as (pid, go):
        go()
        for _ in range(rounds):
            before = cpu_ns(pid)
            answered = go()
            found.cpu_ms.append((cpu_ns(pid) - before) / 1e6)
            found.probes += len(addresses)
            found.lost += len(addresses) - sum(rtt is not None for rtt in answered.values())
        found.memory = memory_mib(pid)
    return found
