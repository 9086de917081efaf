"""The ring on files gives back after a kill, an upgrade or a reboot exactly what it must, and says what it cannot."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pingmon_agent import segments
from pingmon_agent.journal import RETRY_S, BusyError, Journal
from pingmon_agent.ring import Ring
from pingmon_agent.segments import Block, Kind

from .shelf import ALL, Host, journal_of, no_room, values

KEEP_S = 1800.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host that nobody was on."""
    made = Host(tmp_path / "ring")
    yield made
    made.close()


def killed_after(host: Host, count: int, *, width: int = 3, step_s: float = 1.0) -> list[int]:
    """An agent measures `count` rounds and is killed; the values it measured."""
    ring = host.agent()
    for value in range(count):
        host.measure(ring, value, width)
        host.wait(step_s)
    host.kill(ring)
    return list(range(count))


class Model(RuleBasedStateMachine):
    """One agent that measures, hears acknowledgements and is killed, beside a list of what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.host = Host(Path(self.folder.name) / "ring", max_bytes=1 << 20)
        self.ring = self.host.agent()
        self.epoch = self.ring.epoch
        self.kept: list[tuple[int, float, int]] = []  # seq, when, width
        self.acked = self.count = 0

    @rule(width=st.integers(0, 40), wait=st.sampled_from([0.0, 0.5, 1.0, 59.0, 60.0, 700.0]))
    def measure(self, width: int, wait: float) -> None:
        made = self.ring.append(started_ms=5, revision=1, samples=array("i", [self.count] * width), disturbed=False)
        assert made is not None
        self.count += 1
        assert made.seq == self.count
        self.kept.append((self.count, self.host.now, width))
        self.host.now += wait

    @rule(back=st.integers(0, 5))
    def ack(self, back: int) -> None:
        self.acked = max(0, self.count - back)
        self.ring.ack(self.acked)

    @rule(step_h=st.integers(-50, 50))
    def set_clock(self, step_h: int) -> None:
        """Somebody sets the wall clock; nothing may come of it."""
        self.host.wall_ms += step_h * 3_600_000

    @rule()
    @precondition(lambda self: self.count > 0)
    def kill(self) -> None:
        self.host.kill(self.ring)
        self.ring = self.host.agent()

    @invariant()
    def holds_what_it_must(self) -> None:
        self.kept = [k for k in self.kept if k[1] >= self.host.now - KEEP_S]
        rounds = self.ring.after(0, ALL)
        assert [(r.seq, len(r.samples), r.epoch) for r in rounds] == [(s, w, self.epoch) for s, _, w in self.kept]
        assert all(set(r.samples) <= {r.seq - 1} for r in rounds)
        assert self.ring.last_seq == self.count
        assert self.ring.waiting() == sum(width for seq, _, width in self.kept if seq > self.acked)
        assert len(self.host.segments()) <= 31 or self.host.rings[1:], "a minute is a file"

    def teardown(self) -> None:
        self.host.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_an_epoch_goes_on_after_a_kill(host: Host) -> None:
    """Every number that was given is known, so the next one follows."""
    expected = killed_after(host, 5)

    ring = host.agent()

    assert values(ring) == expected
    assert host.measure(ring, 5).seq == 6


def test_29_minutes_are_kept_and_of_31_the_oldest_one_goes(host: Host) -> None:
    """By the clock of the boot, to the round, across a kill in the middle; as many files as there are minutes."""
    ring = host.agent()
    for value in range(29 * 60):
        host.measure(ring, value)
        host.wait(1)
    assert values(ring) == list(range(29 * 60))
    host.kill(ring)
    ring = host.agent()
    for value in range(29 * 60, 31 * 60):
        host.measure(ring, value)
        host.wait(1)

    kept = values(ring)

    assert kept == list(range(60, 31 * 60))
    assert ring.dropped == 60 * 3
    assert len(host.segments()) <= 32  # 31, and one more as the kill cut a minute in two
    host.wait(4000)
    assert (values(ring), ring.waiting(), len(host.segments())) == ([], 0, 1)


def test_what_expired_before_a_kill_is_not_counted_again(host: Host) -> None:
    """Only what ran out while nobody was there is."""
    killed_after(host, 100, step_s=20)  # the 100th round came 30 minutes after the 10th; the 9th is in its file too
    assert segments.read(host.segments()[0].read_bytes()).blocks[1].samples[0] < 9
    host.wait(300)

    ring = host.agent()

    assert ring.dropped == 16 * 3
    assert values(ring) == list(range(25, 100))


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_step_neither_expires_nor_keeps(host: Host, hours: int) -> None:
    """The wall clock is set while the agent runs, and again while it is away."""
    ring = host.agent()
    host.measure(ring, 1)
    host.wall_ms += hours * 3_600_000
    host.measure(ring, 2)
    host.kill(ring)
    host.wall_ms += hours * 3_600_000
    host.now += KEEP_S - 1

    ring = host.agent()

    assert values(ring) == [1, 2]
    host.now += 2
    assert values(ring) == []


def test_after_a_reboot_the_wall_clock_tells_the_age(host: Host) -> None:
    """The clock of the boot has begun anew: what was measured more than 30 minutes ago goes, the rest is offered."""
    killed_after(host, 40, step_s=60)
    host.reboot(away_s=300)

    ring = host.agent()

    assert values(ring) == list(range(15, 40))
    host.wait(600)
    assert values(ring) == list(range(25, 40))


def test_a_wall_clock_that_is_behind_after_a_reboot_keeps(host: Host) -> None:
    """A host without a clock of its own must not throw away what it holds."""
    killed_after(host, 3)
    host.reboot(away_s=-86_400)

    assert values(host.agent()) == [0, 1, 2]


def test_a_reboot_begins_a_new_epoch_and_offers_the_old_one_first(host: Host) -> None:
    """Nobody knows whether the last rounds before a power cut were sent; so their epoch is closed, not renumbered."""
    killed_after(host, 3)
    old = host.rings[0].epoch
    host.reboot()
    ring = host.agent()
    assert (ring.epoch, ring.last_seq) == (old, 3)

    fresh = host.measure(ring, 7)
    assert (ring.epoch, values(ring), fresh.seq) == (old, [0, 1, 2], 1)
    ring.ack(3, old)

    assert (ring.epoch, ring.last_seq, values(ring)) == (fresh.epoch, 1, [7])
    assert ring.waiting() == 3
    ring.offer_again()
    assert ring.epoch == old


def test_a_closed_epoch_of_which_the_server_knows_more_is_done(host: Host) -> None:
    """What the power cut took was delivered: nothing is numbered anew, nothing comes twice."""
    killed_after(host, 3)
    host.reboot()
    ring = host.agent()
    host.measure(ring, 7)

    ring.new_epoch()

    assert values(ring) == [7]


def test_acknowledged_rounds_can_be_had_again_after_a_kill(host: Host) -> None:
    """The position is known as well as the rounds below it."""
    ring = host.agent()
    for value in range(5):
        host.measure(ring, value)
    ring.ack(4)
    host.kill(ring)

    ring = host.agent()

    assert ring.waiting() == 3
    assert values(ring, 2) == [2, 3, 4]


def test_rounds_of_another_agent_go_from_the_files_too(host: Host) -> None:
    """Approved under another id before a kill or after it: either way nothing of the former self is left."""
    for kill_first in (False, True):
        ring = host.agent()
        ring.belong_to("one")
        host.measure(ring, 1)
        host.measure(ring, 2)
        if kill_first:
            host.kill(ring)
            ring = host.agent()
        ring.belong_to("two")
        host.kill(ring)

        ring = host.agent()
        assert (values(ring), ring.waiting()) == ([], 0)
        host.kill(ring)


def test_a_file_of_another_agent_that_could_not_be_removed_is_passed_over(host: Host) -> None:
    """Its rounds stand under the same epoch, but in the name of another."""
    ring = host.agent()
    ring.belong_to("one")
    host.measure(ring, 1)
    stuck = host.segments()[0]
    data = stuck.read_bytes()
    ring.belong_to("two")
    host.measure(ring, 2)
    host.kill(ring)
    stuck.write_bytes(data)

    assert values(host.agent()) == [2]


def test_a_new_epoch_takes_the_place_of_the_old_one_on_file(host: Host) -> None:
    """A host that was set back: what is not acknowledged stands there under its new numbers, and once."""
    ring = host.agent()
    for value in range(5):
        host.measure(ring, value)
    ring.ack(3)
    ring.new_epoch()
    epoch = ring.epoch
    host.measure(ring, 5)
    host.kill(ring)

    ring = host.agent()

    assert (ring.epoch, [(r.seq, r.samples[0]) for r in ring.after(0, ALL)]) == (epoch, [(1, 3), (2, 4), (3, 5)])


def test_a_second_agent_is_refused(host: Host) -> None:
    """With the process that is there, and what to do; once that one is gone the directory is free."""
    ring = host.agent()
    with pytest.raises(BusyError) as refused:
        host.agent()
    ring.close()

    assert str(refused.value) == (
        f"another agent (process {os.getpid()}) keeps its rounds in {host.directory}; stop it, or give this one a "
        'directory of its own by agent.buffer_dir, or set agent.buffer = "memory"'
    )
    assert values(host.agent()) == []


def test_files_never_exceed_the_maximum(host: Host) -> None:
    """The oldest go, in memory as on file, and what nobody had acknowledged counts as dropped."""
    host.max_bytes = 1 << 20
    ring = host.agent()
    for value in range(300):
        host.measure(ring, value, width=2000)
        host.wait(0.5)
        files = sum(path.stat().st_size for path in host.segments())
        assert files == journal_of(ring).size <= host.max_bytes
    kept = values(ring)
    host.kill(ring)

    assert 110 < len(kept) < 131
    assert kept == list(range(300 - len(kept), 300))
    assert ring.dropped == (300 - len(kept)) * 2000
    assert values(host.agent()) == kept


# -- damage --


def flip(data: bytearray, rng: random.Random) -> int:
    """Turn a bit of one byte, and return where."""
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    return place


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_flipped_bit_costs_one_round_at_most(host: Host, which: int) -> None:
    """100 times at a random place of the oldest, a middle or the newest segment: every other round is there."""
    expected = killed_after(host, 30, step_s=6)
    whole = host.directory.with_name("whole")
    shutil.copytree(host.directory, whole)
    for seed in range(100):
        shutil.rmtree(host.directory)
        shutil.copytree(whole, host.directory)
        victim = host.segments()[which]
        data = bytearray(victim.read_bytes())
        place = flip(data, random.Random(f"{which} {seed}"))
        victim.write_bytes(data)

        ring = host.agent()
        found = values(ring)

        counts = journal_of(ring).counts
        assert (counts.damaged, counts.set_aside) == (1, 0), (seed, place)
        assert set(found) <= set(expected), (seed, place)
        assert len(found) >= len(expected) - 1, (seed, place)
        host.kill(ring)


def test_a_cut_segment_costs_what_was_cut_off(host: Host) -> None:
    """100 times at a random place: all rounds before the cut and in all other segments are there."""
    expected = killed_after(host, 30, step_s=6)
    whole = host.directory.with_name("whole")
    shutil.copytree(host.directory, whole)
    for seed in range(100):
        rng = random.Random(seed)
        shutil.rmtree(host.directory)
        shutil.copytree(whole, host.directory)
        victim = host.segments()[rng.randrange(3)]
        size = rng.randrange(victim.stat().st_size)
        inside = [block.samples[0] for block in segments.read(victim.read_bytes()).blocks if block.samples]
        left = [block.samples[0] for block in segments.read(victim.read_bytes()[:size]).blocks if block.samples]
        os.truncate(victim, size)

        ring = host.agent()

        assert values(ring) == [value for value in expected if value not in inside or value in left], seed
        assert inside[: len(left)] == left, seed
        host.kill(ring)


def test_a_hole_is_declared_with_its_reason(host: Host) -> None:
    """A damaged round divides reports, and is not said to have expired."""
    killed_after(host, 5, width=50)
    victim = host.segments()[-1]
    data = bytearray(victim.read_bytes())
    data[data.index(struct.pack("=i", 2) * 50)] ^= 255
    victim.write_bytes(data)

    ring = host.agent()

    assert [r.seq for r in ring.after(0, ALL)] == [1, 2]
    assert [r.seq for r in ring.after(2, ALL)] == [4, 5]
    assert (ring.why_missing(4), ring.why_missing(1)) == ("damaged", "expired")


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "pointer"])
def test_an_epoch_ends_if_its_numbers_may_not_all_be_known(host: Host, harm: str) -> None:
    """The newest segment is torn or gone, or nobody says which it is: a number could be given twice."""
    killed_after(host, 130)
    newest = host.segments()[-1]
    data = newest.read_bytes()
    if harm == "cut":
        os.truncate(newest, len(data) - 1)
    elif harm == "flip":
        newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "remove":
        newest.unlink()
    else:
        (host.directory / "lock").write_bytes(b"\xff" * 40)
    ring = host.agent()
    old = ring.epoch

    fresh = host.measure(ring, 1000)

    assert (fresh.seq, old == host.rings[0].epoch != fresh.epoch) == (1, True)


def test_another_version_is_set_aside_and_counted(host: Host) -> None:
    """A segment of a later agent is not read and not deleted; all others are read."""
    killed_after(host, 130)
    victim = host.segments()[1]
    data = victim.read_bytes()
    head = struct.pack("=8sI", b"pmring\r\n", 2)
    victim.write_bytes(head + struct.pack("=I", zlib.crc32(head)) + data[len(head) + 4 :])

    ring = host.agent()

    assert journal_of(ring).counts.set_aside == 1
    assert not victim.exists()
    assert victim.with_name(victim.name + ".aside").read_bytes()[:8] == b"pmring\r\n"
    assert len(values(ring)) == 130 - 60
    assert host.measure(ring, 5).seq == 131


def test_what_is_set_aside_makes_room_first(host: Host) -> None:
    """The maximum counts it too."""
    host.max_bytes = 1 << 20
    host.directory.mkdir()
    (host.directory / "000000000007.ring").write_bytes(bytes(900_000))
    ring = host.agent()
    assert (journal_of(ring).counts.set_aside, journal_of(ring).size) == (1, 900_000)
    for value in range(30):
        host.measure(ring, value, width=2000)

    assert [path.name for path in host.directory.glob("*.aside")] == []
    assert len(values(ring)) == 30


def test_any_bytes_are_read_without_an_exception(tmp_path: Path) -> None:
    """Random bytes, also such as begin like a block of ours: no block, and damage is counted."""
    rng = random.Random(4)
    for _ in range(200):
        data = rng.choice([b"", segments.head(), segments.head()[:9]]) + rng.choice([b"", b"\xf5pm1"]) * rng.randrange(
            5
        )
        found = segments.read(data + rng.randbytes(rng.randrange(1, 200)))
        assert (found.blocks, found.known, found.damaged >= 1) == ([], True, True)


def test_a_block_comes_back_as_it_was() -> None:
    """All that a round and a state are made of."""
    facts = {"boot": b"12345678", "epoch": "00c0ffee00c0ffee", "at": 12.345678, "agent_id": "ä-1"}
    one = Block(
        kind=Kind.ROUND, seq=9, time_ms=2**60, revision=2**40, disturbed=True, samples=array("i", [-1, 5]), **facts
    )
    two = Block(kind=Kind.STATE, seq=2**52, acked=2**51, **facts)
    data = segments.head() + b"".join(bytes(part) for block in (one, two) for part in segments.pack(block))

    assert segments.read(data).blocks == [one, two]


# -- files that cannot be written --


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
    flusher = journal_of(ring)._flusher

    assert flusher is not None
    assert (flusher.flushes >= 1, flusher.failure(), flusher._dirty) == (True, None, set())


def test_a_flush_that_fails_is_a_failed_write(host: Host) -> None:
    """The next round is kept in memory, under an epoch of its own, and the reason is said."""
    ring = host.agent(durable=True)
    host.measure(ring, 0)
    flusher = journal_of(ring)._flusher
    assert flusher is not None
    flusher.stop()
    flusher._dirty.add(host.directory / "lock" / "x")  # no such thing can be opened
    flusher._flush()

    host.measure(ring, 1)

    assert (journal_of(ring).healthy, journal_of(ring).reason) == (False, "Not a directory")
    assert values(ring) == [0]
