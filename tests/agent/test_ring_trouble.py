"""Files of the ring that cannot be written, and processes that are killed while they write."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from pingmon_agent import segments
from pingmon_agent.journal import RETRY_S, Journal
from pingmon_agent.ring import Ring

from .shelf import ALL, Host, journal_of, killed_after, no_room, values


def test_without_room_it_goes_on_in_memory_and_comes_back(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Measured rounds are there and can be sent; each change is said once; what was missed is written afterwards."""
    caplog.set_level("INFO", "pingmon_agent")
    ring = host.agent()
    host.measure(ring, 0)
    with no_room():
        for value in range(1, 40):
            host.measure(ring, value)
            host.wait(1)
        healthy, reason = journal_of(ring).healthy, journal_of(ring).reason
        ring.ack(1)
        assert values(ring) == list(range(1, 40))  # under an epoch of their own
    said = [record.message.partition(" directory")[0] for record in caplog.records]
    host.wait(RETRY_S)
    host.measure(ring, 40)
    again = [record.message.partition(" directory")[0] for record in caplog.records][len(said) :]
    host.kill(ring)
    ring = host.agent()

    assert (healthy, reason) == (False, "File too large")
    assert said == ["rounds cannot be written and are kept in memory only"]
    assert again == ["rounds are kept on file again"]
    assert values(ring) == [0]
    ring.ack(1)
    assert values(ring) == list(range(1, 41))
    assert [block.kind for path in host.segments() for block in segments.read(path.read_bytes()).blocks].count(1) == 41


def test_no_number_is_given_twice_by_an_agent_that_died_without_room(host: Host) -> None:
    """What was numbered while nothing could be written may be at the server: no start may number so again."""
    ring = host.agent()
    first = host.measure(ring, 0)
    with no_room(300):
        sent = [host.measure(ring, value, width=30) for value in range(1, 5)]
    host.kill(ring)
    ring = host.agent()

    again = [host.measure(ring, value) for value in range(5, 10)]

    taken = {(r.epoch, r.seq) for r in (first, *sent)}
    assert not taken & {(r.epoch, r.seq) for r in again}
    assert values(ring)[0] == 0
    assert journal_of(ring).counts.damaged == 0, "the half block that found no room was cut off"


@pytest.mark.parametrize("attempts", [1, 2])
def test_no_number_is_given_twice_after_an_attempt_that_went_half_way(host: Host, attempts: int) -> None:
    """Room for the first of two rounds only: what is numbered after that attempt is in no file either."""
    ring = host.agent()
    host.measure(ring, 0)
    with no_room():
        sent = [host.measure(ring, 1), host.measure(ring, 2, width=2000)]
    with no_room(2000):
        for _ in range(attempts):
            host.wait(RETRY_S)
            sent += [host.measure(ring, 3), host.measure(ring, 4)]
    assert len(host.segments()) == 2, "attempts leave nothing behind"
    assert journal_of(ring).counts.failures == 1 + attempts
    host.kill(ring)
    ring = host.agent()

    again = host.measure(ring, 6)

    assert again.epoch not in {r.epoch for r in sent}


def test_a_directory_that_is_removed_is_made_again(host: Host) -> None:
    """Somebody cleans /run below a running agent: at the next minute all that is in memory is written anew."""
    ring = host.agent()
    for value in range(10):
        host.measure(ring, value)
    shutil.rmtree(host.directory)
    for value in range(10, 20):
        host.wait(RETRY_S + 1)
        host.measure(ring, value)
    assert journal_of(ring).healthy
    host.kill(ring)
    ring = host.agent()

    found = values(ring)
    ring.ack(ring.last_seq)

    assert found + values(ring) == list(range(20))


def test_rounds_wait_for_a_directory_that_comes_late(host: Host) -> None:
    """The file system of the buffer is mounted after the start: then it is used, and what was there is offered."""
    killed_after(host, 3)
    hidden = host.directory.rename(host.directory.with_name("hidden"))
    host.directory.write_text("in the way")
    ring = host.agent()
    host.measure(ring, 3)
    assert not journal_of(ring).healthy
    host.directory.unlink()
    hidden.rename(host.directory)
    host.wait(RETRY_S + 1)

    host.measure(ring, 4)

    assert values(ring) == [0, 1, 2]
    ring.ack(3)
    assert values(ring) == [3, 4]
    assert journal_of(ring).healthy


@pytest.mark.root
def test_a_full_file_system_stops_nothing(small: Path) -> None:
    """Others fill it, the agent goes on in memory for 30 minutes, and is back on file once there is room."""
    host = Host(small / "ring")
    ring = host.agent()
    filler = small / "filler"
    try:
        host.measure(ring, 0)
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(2 << 20))
        for value in range(1, 200):
            host.measure(ring, value, width=300)
            host.wait(5)
        assert (journal_of(ring).healthy, journal_of(ring).reason) == (False, "No space left on device")
        found = values(ring)
        ring.ack(ring.last_seq)
        assert found + values(ring) == list(range(200))
        assert len(host.segments()) == 1, "attempts leave nothing behind"
        filler.unlink()
        host.wait(RETRY_S)
        host.measure(ring, 200)
        assert journal_of(ring).healthy
    finally:
        host.close()


@pytest.mark.root
def test_what_expired_makes_room(small: Path) -> None:
    """The agent's own files filled it: once they are too old they go, though nothing can be written meanwhile."""
    host = Host(small / "ring")
    ring = host.agent()
    try:
        for value in range(40):
            host.measure(ring, value, width=10_000)
            host.wait(10)
        assert not journal_of(ring).healthy
        host.wait(1900)
        host.measure(ring, 40, width=10_000)
        assert journal_of(ring).healthy
    finally:
        host.close()


@pytest.mark.root
def test_a_read_only_file_system_stops_nothing(small: Path) -> None:
    """Mounted read-only below the agent and back, and read-only at its start."""
    host = Host(small / "ring")
    ring = host.agent()
    try:
        host.measure(ring, 0)
        journal_of(ring)._close()  # no file open for writing, or the kernel refuses to remount
        os.close(journal_of(ring)._lock_fd)
        journal_of(ring)._lock_fd = -1
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        host.measure(ring, 1)
        late = Host(small / "ring", now=host.now).agent()
        assert journal_of(late).reason == journal_of(ring).reason == "Read-only file system"
        late.close()
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        host.wait(RETRY_S + 1)
        host.measure(ring, 2)
        assert journal_of(ring).healthy
    finally:
        host.close()


# -- a real process, really killed --

WRITER = """
import sys, time
from array import array
from pathlib import Path
from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring
ring = Ring(lambda: time.clock_gettime(time.CLOCK_BOOTTIME), journal=Journal(Path(sys.argv[1]), 1 << 30))
base = int(sys.argv[2])
for n in range(10**6):
    samples = array("i", [base + n]) * 50
    made = ring.append(started_ms=time.time_ns() // 10**6, revision=1, samples=samples, disturbed=False)
    print(made.epoch, made.seq, base + n, flush=True)
    if n % 7 == 6:
        ring.ack(made.seq - 2)
"""


def killed_writer(directory: Path, base: int, wait: Callable[[], None]) -> list[tuple[str, int, int]]:
    """What a process said it had appended before it was killed."""
    command = [sys.executable, "-c", WRITER, str(directory), str(base)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    wait()
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    rows = [line.split() for line in said if line.endswith("\n")]
    return [(epoch, int(seq), int(value)) for epoch, seq, value in rows]


@pytest.mark.e2e
def test_50_kills_lose_nothing_that_was_appended(tmp_path: Path) -> None:
    """SIGKILL at a random moment, 50 times in a row on one directory: every round once, none altered, no number twice.

    A kill within a write may leave a block cut at a page; then the epoch is closed, and the next one begins.
    """
    rng, said = random.Random(50), []
    for kill in range(50):
        said += killed_writer(tmp_path / "ring", kill * 10**6, lambda: time.sleep(rng.random() * 0.01))
    ring = Ring(lambda: time.clock_gettime(time.CLOCK_BOOTTIME), journal=Journal(tmp_path / "ring", 1 << 30))
    kept: dict[tuple[str, int], list[int]] = {}
    while ring.epoch not in {epoch for epoch, _ in kept}:
        kept |= {(r.epoch, r.seq): r.samples.tolist() for r in ring.after(0, ALL)}
        ring.ack(ring.last_seq)
    ring.close()

    assert len({(epoch, seq) for epoch, seq, _ in said}) == len(said) > 100
    assert [(epoch, seq) for epoch, seq, value in said if kept.get((epoch, seq)) != [value] * 50] == []
    assert len(kept) - len(said) <= 50, "one at most that was written but not said"
    assert len({epoch for epoch, _, _ in said}) <= 10


def test_a_durable_ring_is_flushed(host: Host) -> None:
    """What was put is flushed by a thread of its own, at the latest when the ring is closed; close waits for it."""
    ring = host.agent(durable=True)
    for value in range(100):
        host.measure(ring, value)
    ring.close()
    flusher = journal_of(ring).flusher

    assert flusher is not None
    assert (flusher.flushes >= 1, flusher.failure(), flusher._dirty) == (True, None, set())


def test_a_flush_that_fails_is_a_failed_write(host: Host) -> None:
    """The next round is kept in memory, under an epoch of its own, and the reason is said."""
    ring = host.agent(durable=True)
    host.measure(ring, 0)
    flusher = journal_of(ring).flusher
    assert flusher is not None
    flusher.stop()
    flusher._dirty.add(host.directory / "lock" / "x")  # no such thing can be opened
    flusher._flush()

    host.measure(ring, 1)

    assert (journal_of(ring).healthy, journal_of(ring).reason) == (False, "Not a directory")
    assert values(ring) == [0]


@pytest.mark.root
def test_files_on_tmpfs_tell_the_boot_where_its_name_is_hidden(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under systemd with ProcSubset=pid: on tmpfs the epoch goes on; on a disk each start counts as a reboot."""
    monkeypatch.setattr("pingmon_agent.boot.BOOT_ID", tmp_path / "hidden")
    continued = []
    for place in (small / "ring", tmp_path / "ring"):
        epochs = []
        for _ in range(2):
            ring = Ring(lambda: 100.0, journal=Journal(place, 1 << 20))
            made = ring.append(started_ms=time.time_ns() // 10**6, revision=1, samples=array("i", [1]), disturbed=False)
            assert made is not None
            epochs.append(made.epoch)
            ring.close()
        continued.append(epochs[0] == epochs[1])

    assert continued == [True, False]
