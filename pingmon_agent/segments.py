"""What stands in a segment file of the ring: a header with the format's version, then blocks, each with its own CRC.

A block is a round, or the state of an epoch (which numbers are given, which acknowledged). Each names its boot, agent
and epoch itself, so that damage to any byte of a file costs the block it hits and no other. Native byte order: a
segment never leaves its host. CRC-32 of zlib: in the standard library, and it finds every burst up to 32 bits.
Must not know: directories, clocks, who writes and when.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from .wire.contract import Round

VERSION = 1
_FILE_MAGIC = b"pmring\r\n"
_FILE = struct.Struct("=8sII")  # magic, version, CRC of both
_BLOCK_MAGIC = b"\xf5pm1"
_FRAME = struct.Struct("=4sII")  # magic, length of the body, CRC of length and body
_LENGTH = struct.Struct("=I")
_BODY = struct.Struct("=B8s8sQdQQBH")  # kind, boot, epoch, seq, at, time, revision, disturbed, length of the agent's id
_MAX_BODY = 1 << 20
# What a round takes beside its samples, with an agent's id of 36 characters.
ROUND_BYTES = _FRAME.size + _BODY.size + 36


class Kind(IntEnum):
    """What a block holds."""

    ROUND = 1
    STATE = 2


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block. `boot` is 8 bytes that name the boot of the host, `at` seconds on the boot's clock.

    A round has `seq`, `time_ms` (its start on the wall clock) and `samples`; a state has the last number given in
    `seq` and the last one acknowledged in `acked`.
    """

    kind: Kind
    boot: bytes
    epoch: str
    seq: int
    at: float
    agent_id: str = ""
    time_ms: int = 0
    acked: int = 0
    revision: int = 0
    disturbed: bool = False
    samples: array[int] = field(default_factory=lambda: array("i"))

    @staticmethod
    def of(r: Round, *, at: float, boot: bytes, agent_id: str) -> Block:
        """A round as a block."""
        return Block(
            kind=Kind.ROUND,
            boot=boot,
            epoch=r.epoch,
            seq=r.seq,
            at=at,
            agent_id=agent_id,
            time_ms=r.started_ms,
            revision=r.revision,
            disturbed=r.disturbed,
            samples=r.samples,
        )

    def round(self) -> Round:
        """The round in it."""
        return Round(
            epoch=self.epoch,
            seq=self.seq,
            started_ms=self.time_ms,
            revision=self.revision,
            samples=self.samples,
            disturbed=self.disturbed,
        )


@dataclass
class Contents:
    """What a segment was found to hold. `damaged`: stretches that are no blocks; `known`: of a version that we read."""

    blocks: list[Block] = field(default_factory=list)
    damaged: int = 0
    known: bool = True


def head() -> bytes:
    """The first bytes of a file."""
    start = _FILE.pack(_FILE_MAGIC, VERSION, 0)[:-4]
    return start + _LENGTH.pack(zlib.crc32(start))


def pack(block: Block) -> tuple[bytes, array[int]]:
    """A block as it is written: the first part, and the samples as they are."""
    agent = block.agent_id.encode()[:65_535]
    value = block.time_ms if block.kind is Kind.ROUND else block.acked
    epoch = bytes.fromhex(block.epoch)
    facts = (block.kind, block.boot, epoch, block.seq, block.at, value, block.revision, block.disturbed, len(agent))
    start = _BODY.pack(*facts) + agent
    size = _LENGTH.pack(len(start) + 4 * len(block.samples))
    crc = zlib.crc32(block.samples, zlib.crc32(start, zlib.crc32(size)))
    return _BLOCK_MAGIC + size + _LENGTH.pack(crc) + start, block.samples


def read(data: bytes) -> Contents:
    """All that is whole in the bytes of a file. A file that ends within a block counts that as damage too."""
    found = Contents()
    first, found.known = _file_head(data)
    if not found.known:
        return found
    found.damaged = 0 if first else 1
    end = first
    for begin, after, block in _blocks(data, first):
        found.damaged += begin > end > 0
        found.blocks.append(block)
        end = after
    found.damaged += len(data) > end > 0
    return found


def _file_head(data: bytes) -> tuple[int, bool]:
    """(where blocks begin, whether the version is known); a damaged head is read as if it were ours: (0, True)."""
    if len(data) < _FILE.size:
        return 0, True
    magic, version, crc = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC or crc != zlib.crc32(data[: _FILE.size - 4]):
        return 0, True
    return _FILE.size, version == VERSION


def _blocks(data: bytes, start: int) -> Iterator[tuple[int, int, Block]]:
    """(begin, end, block) of every whole block; what does not fit is searched for the next one."""
    view = memoryview(data)
    begin = data.find(_BLOCK_MAGIC, start)
    while begin >= 0:
        after = _whole(view, begin)
        block = _block(view[begin + _FRAME.size : after]) if after else None
        if block is not None:
            yield begin, after, block
        begin = data.find(_BLOCK_MAGIC, after if block is not None else begin + 1)


def _whole(view: memoryview, begin: int) -> int:
    """Where the block at `begin` ends; 0 if it is not whole."""
    if begin + _FRAME.size + _BODY.size > len(view):
        return 0
    _, length, crc = _FRAME.unpack_from(view, begin)
    after = begin + _FRAME.size + int(length)
    if not _BODY.size <= length <= _MAX_BODY or after > len(view):
        return 0
    body = zlib.crc32(view[begin + _FRAME.size : after], zlib.crc32(view[begin + 4 : begin + 8]))
    return after if body == crc else 0


def _block(body: memoryview) -> Block | None:
    """The block in `body`, whose CRC is right; None if no program of ours can have written it."""
    kind, boot, epoch, seq, at, value, revision, disturbed, named = _BODY.unpack_from(body)
    rest = len(body) - _BODY.size - named
    if kind not in set(Kind) or rest < 0 or rest % 4:
        return None
    samples = array("i")
    samples.frombytes(body[_BODY.size + named :])
    return Block(
        kind=Kind(kind),
        boot=boot,
        epoch=epoch.hex(),
        seq=seq,
        at=at,
        agent_id=bytes(body[_BODY.size : _BODY.size + named]).decode(errors="replace"),
        time_ms=value if kind == Kind.ROUND else 0,
        acked=value if kind == Kind.STATE else 0,
        revision=revision,
        disturbed=bool(disturbed),
        samples=samples,
    )
