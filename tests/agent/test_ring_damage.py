"""Damaged, cut, foreign and missing files of the ring: only what is damaged is lost, and it is counted."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from array import array
from pathlib import Path

import pytest

from pingmon_agent import segments
from pingmon_agent.segments import Block, Kind

from .shelf import ALL, Host, journal_of, killed_after, values


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
