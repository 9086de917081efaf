"""What tests of the ring on files share: a host whose clocks the test turns, and agents on it that can be killed."""

from __future__ import annotations

import resource
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pingmon_agent.journal import Journal
from pingmon_agent.ring import MAX_SAMPLES, Limits, Ring
from pingmon_agent.wire.contract import Round

ALL = Limits(rounds=10**6, samples=10**9, bytes=10**12)


@dataclass
class Host:
    """A host with a directory for the ring."""

    directory: Path
    now: float = 100.0  # on the clock of this boot
    wall_ms: int = 1_700_000_000_000
    boots: int = 1
    max_bytes: int = 4 << 20
    rings: list[Ring] = field(default_factory=list)

    def agent(self, keep_s: float = 1800.0, durable: bool = False) -> Ring:
        """The ring of an agent that starts now."""
        journal = Journal(
            self.directory,
            self.max_bytes,
            durable=durable,
            boot=self.boots.to_bytes(8, "big"),
            wall=lambda: self.wall_ms,
        )
        self.rings.append(Ring(lambda: self.now, keep_s, MAX_SAMPLES, journal))
        return self.rings[-1]

    def kill(self, ring: Ring) -> None:
        """End the agent as SIGKILL does: the kernel closes its files, and nothing else happens."""
        journal = journal_of(ring)
        journal._close()
        journal._unlock()

    def reboot(self, away_s: float = 60.0) -> None:
        """Another boot, whose clock begins anew."""
        self.boots += 1
        self.wall_ms += int(away_s * 1000)
        self.now = 5.0

    def wait(self, seconds: float) -> None:
        """Time goes by on both clocks."""
        self.now += seconds
        self.wall_ms += int(seconds * 1000)

    def measure(self, ring: Ring, value: int, width: int = 3) -> Round:
        """One round whose samples all say `value`."""
        samples = array("i", [value]) * width
        made = ring.append(started_ms=self.wall_ms, revision=7, samples=samples, disturbed=value % 2 == 1)
        assert made is not None
        return made

    def segments(self) -> list[Path]:
        """The files that hold rounds, oldest first."""
        return sorted(self.directory.glob("*.ring"))

    def close(self) -> None:
        """Let go of everything."""
        for ring in self.rings:
            ring.close()


def journal_of(ring: Ring) -> Journal:
    """The journal of a ring that has one."""
    assert ring._journal is not None
    return ring._journal


def values(ring: Ring, after: int = 0) -> list[int]:
    """What the rounds of the offered epoch say, oldest first; a hole is passed over."""
    found: list[int] = []
    while rounds := ring.after(after, ALL):
        found += [r.samples[0] for r in rounds]
        after = rounds[-1].seq
    return found


@contextmanager
def no_room(size: int = 0) -> Iterator[None]:
    """No file can grow beyond `size` bytes: what write(2) says then is what it says on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def killed_after(host: Host, count: int, *, width: int = 3, step_s: float = 1.0) -> list[int]:
    """An agent measures `count` rounds and is killed; the values it measured."""
    ring = host.agent()
    for value in range(count):
        host.measure(ring, value, width)
        host.wait(step_s)
    host.kill(ring)
    return list(range(count))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host that nobody was on."""
    made = Host(tmp_path / "ring")
    yield made
    made.close()


def mounted(path: Path, options: str) -> Iterator[Path]:
    """A small file system of its own on `path`."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    yield from mounted(tmp_path / "small", "size=1m")
