"""Fault 12: the disk with the agents' rings is full and has room again, then turns read-only and is mended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pingmon_agent import journal as agent_journal
from pingmon_agent import segments
from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring
from tests.support.processes import wait_for

from .apart import RING_BYTES
from .fault import Fault, Findings
from .fault_11 import SIZE_MIB, fill
from .guards import NEVER_S
from .world import Run, World

journals: list[Journal] = []  # of this run's agents
TOLD_S, WELL_S, LIVE_S = 30.0, 60.0, 5.0
FULL, READ_ONLY = "No space left on device", "Read-only file system"


class Disk:
    """A small ext4 file system at `place`, on a loop device: no other kind turns read-only under open files."""

    def __init__(self, place: Path) -> None:
        self.place, self._image = place, place.with_suffix(".img")
        place.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(SIZE_MIB << 20)
        # Blocks of 1 KiB: a segment finds room in its last one for seconds only.
        _command("mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", str(self._image))

    def mount(self) -> None:
        """Put it in its place; an error turns it read-only.

        On a device of its own: as long as anybody has files open on the old one, the kernel keeps it as it is.
        """
        device = self._device = _command("losetup", "--find", "--show", str(self._image)).strip()
        _command("mount", "-o", "errors=remount-ro", device, str(self.place))
        _command("losetup", "--detach", device)  # once nobody uses it any more

    def unmount(self) -> None:
        """Take it away, whoever has it open."""
        _command("umount", "--lazy", str(self.place))

    def fail(self) -> None:
        """Let it find an error in itself: from now on the kernel lets nobody write."""
        Path(f"/sys/fs/ext4/{Path(self._device).name}/trigger_fs_error").write_text("fault 12")

    def mend(self) -> None:
        """What an administrator does, without a word to the agents."""
        self.unmount()
        code = subprocess.run(["fsck.ext4", "-f", "-y", str(self._image)], capture_output=True).returncode
        assert code in (0, 1), f"fsck ended with {code}"
        self.mount()


def _command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()} (this fault needs ext4 on loop devices)"
    return done.stdout


@contextmanager
def _mounted(place: Path) -> Iterator[Disk]:
    disk = Disk(place)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


def run(run: Run) -> Findings:
    """Rings on a small disk, and trouble long enough for the server to be killed in it; twice, of two kinds."""
    found, lasts = Findings(), run.scale(60, 6)
    with _mounted(run.home / "rings") as disk, World(run, ring_of=partial(_ring_on, disk.place)) as world:
        for agent in world.fleet.agents if run.without == "from-memory" else ():
            agent.delivery.silenced = lambda: not all(j.healthy for j in journals)
        if run.without == "asks-again":
            agent_journal.RETRY_S = NEVER_S
        world.start()
        ballast = fill(disk.place)
        run.journal.note("the disk of the rings is full")
        _suffer(world, found, "full", FULL, LIVE_S)
        ballast.unlink()
        _get_well(found, "full")
        disk.fail()
        run.journal.note("the disk of the rings is read-only")
        _suffer(world, found, "read_only", READ_ONLY, lasts)
        disk.mend()
        run.journal.note("the disk of the rings is mended")
        _get_well(found, "read_only")
        world.fleet.drain()
        _on_file(world, found)
        world.stop_server()
        found.close(world.verdict())
    return found


def _ring_on(disk: Path, name: str) -> Callable[..., Ring]:
    (disk / name).mkdir()
    journals.append(Journal(disk / name, RING_BYTES))
    return partial(Ring, journal=journals[-1])


def _suffer(world: World, found: Findings, kind: str, reason: str, lasts: float) -> None:
    """Until every ring says so; then on without a server for a moment, and with one."""
    agents, began = world.fleet.agents, time.monotonic()
    wait_for(lambda: all(j.reason == reason for j in journals), f"every ring to say {reason}", deadline_s=2 * TOLD_S)
    told = time.monotonic() - began
    world.kill_server()
    time.sleep(2.0)
    world.start_server()
    world.fleet.wait_back()
    live = min(_reported(world, min(LIVE_S, lasts - at)) for at in range(0, int(lasts), int(LIVE_S)))
    healthy = sum(j.healthy for j in journals)
    found.figures |= {f"{kind}_told_s": told, f"{kind}_live_agents": live}
    found.require(told <= TOLD_S, f"the last ring told of it after {told:.0f} s, {TOLD_S:g} are allowed")
    found.require(live == len(agents), f"only {live} agents reported while their disk was {kind}")
    found.require(healthy == 0, f"{healthy} rings were on files while their disk was {kind}")


def _reported(world: World, seconds: float) -> int:
    """How many agents have a report acknowledged within this time."""
    since = time.monotonic()
    time.sleep(seconds)
    return sum(any(at > since for at, _ in list(agent.delivery.waits)) for agent in world.fleet.agents)


def _get_well(found: Findings, kind: str) -> None:
    mended = time.monotonic()
    wait_for(lambda: all(j.healthy for j in journals), "every ring to be on files again", deadline_s=WELL_S)
    well = found.figures[f"{kind}_well_s"] = time.monotonic() - mended
    found.require(well <= TOLD_S, f"the last ring was on files again after {well:.0f} s, {TOLD_S:g} are allowed")


def _on_file(world: World, found: Findings) -> None:
    """The newest round of each agent is in the newest file of its ring, on the disk that was mended."""
    missing = []
    for agent, journal in zip(world.fleet.agents, journals, strict=True):
        newest = segments.read(max(journal.directory.glob("*.ring")).read_bytes()).blocks
        if not newest or max(b.seq for b in newest if b.epoch == agent.ring.epoch) != agent.ring.last_seq:
            missing.append(agent.name)
    found.require(not missing, f"the newest rounds of {missing} are not on file")


FAULT = Fault(
    number=12,
    title="disk full, then read-only (agent)",
    inject=f"the rings lie on an ext4 file system of {SIZE_MIB} MiB, which a file fills; then it has room, and an "
    "error in it turns it read-only under open files for a minute, until it is checked and mounted again; the server "
    "is killed in both",
    passes="every ring tells within 30 s and why, every agent goes on reporting from memory all the while (one report "
    "in any 5 s) and is on files again by itself within 30 s: nothing lost, doubled, changed.",
    run=run,
    guards={
        "from-memory": "an agent whose ring is not on files reports nothing",
        "asks-again": "a ring that could not be written is not tried again",
    },
    root=True,
    waits=True,
)
