"""What is inside a probe and inside what comes back. Bytes only: any bytes may come in, nothing here raises on them.

A probe is an ICMP echo request with 56 bytes: a check word per target (random, known to nobody who did not get that
probe), a key per round, the target's place, words that balance the changing ones, and fixed padding. As they balance,
the checksum of a target's packet never changes, and a round only needs four columns filled in.
Must not know: sockets, clocks, rounds.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from dataclasses import dataclass

PAYLOAD_BYTES = 56
PACKET_BYTES = 8 + PAYLOAD_BYTES
PAD = bytes(range(0x20, 0x40))
# Where the fields of a probe lie: bytes from its start.
CHECK_AT, KEY_AT, PLACE_AT, PAD_AT = 8, 16, 24, 32
_IP4_HEADER, _IP6_HEADER, _ICMP, _ICMP6 = 20, 40, 1, 58
_MINE = struct.Struct("=QQI")  # check, key, place: in this machine's order, nobody else reads them


@dataclass(frozen=True, kw_only=True)
class Format:
    """What differs between ICMP and ICMPv6, by their numbers."""

    version: int
    request: int
    reply: int
    errors: tuple[int, ...]
    exceeded: int


V4 = Format(version=4, request=8, reply=0, errors=(3, 11, 12), exceeded=11)
V6 = Format(version=6, request=128, reply=129, errors=(1, 2, 3, 4), exceeded=3)


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo message with room for our fields; `intact`: length and padding are as they were sent."""

    kind: int
    identity: int
    check: int
    key: int
    place: int
    intact: bool


@dataclass(frozen=True, slots=True)
class Quoted:
    """An error about an echo request. `check`, `key` and `place` are None where it quotes too little."""

    kind: int
    code: int
    destination: bytes
    identity: int
    sequence: int
    check: int | None = None
    key: int | None = None
    place: int | None = None


class Packets:
    """The echo requests of all targets of one family, place by place: `words` is what is sent."""

    def __init__(self, fmt: Format, identity: int, count: int, *, with_checksum: bool) -> None:
        """`with_checksum`: of these sockets only raw ICMPv4 wants ours, the kernel fills in the others."""
        self.count = count
        self.checks = array("Q", os.urandom(8 * count))
        blank = struct.pack("!BBHHH", fmt.request, 0, 0, identity, 0) + bytes(PAD_AT - 8) + PAD
        self.words = array("Q", blank * count)
        self.words[CHECK_AT // 8 :: 8] = self.checks
        self._view = memoryview(self.words)
        self._halves = self._view.cast("B").cast("H")
        self._view.cast("B").cast("I")[PLACE_AT // 4 :: 16] = memoryview(array("I", range(count)))
        if with_checksum:
            self._halves[1::32] = memoryview(_checksums(blank, self.checks))
        # Big-endian numbers, twice around, so that any rotation of them is one slice.
        turns, length = count // 0x10000 + 2, count + 0x10000
        self._sequences = (array("H", range(0x10000)) * turns)[:length]
        self._balances = (array("H", range(0xFFFF, -1, -1)) * turns)[:length]
        if struct.pack("=H", 1) != struct.pack("!H", 1):
            self._sequences.byteswap()
            self._balances.byteswap()

    def renumber(self, key: int, salt: int) -> None:
        """Make them those of the round with this key; the packet at place n gets sequence number n + `salt`."""
        salt, count = salt & 0xFFFF, self.count
        balance = ~_folded(sum(struct.unpack("=4H", struct.pack("=Q", key)))) & 0xFFFF
        self._view[KEY_AT // 8 :: 8] = memoryview(array("Q", [key]) * count)
        self._halves[3::32] = memoryview(self._sequences)[salt : salt + count]
        self._halves[14::32] = memoryview(self._balances)[salt : salt + count]
        self._halves[15::32] = memoryview(array("H", [balance]) * count)


def round_key(secret: bytes, number: int) -> int:
    """The key of a round: nobody who has not seen one of its probes can tell it."""
    digest = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "big")


def places_of(sequence: int, salt: int, count: int) -> range:
    """The places whose packet has this sequence number in a round with this salt (many above 65,536 targets)."""
    return range((sequence - salt) & 0xFFFF, count, 0x10000)


def read_echo(icmp: bytes, length: int = PACKET_BYTES) -> Echo | None:
    """An echo message, or None for what is too short to be one of ours. `length`: what an intact one has."""
    if len(icmp) < KEY_AT + 12:
        return None
    check, key, place = _MINE.unpack_from(icmp, CHECK_AT)
    identity = int.from_bytes(icmp[4:6], "big")
    return Echo(icmp[0], identity, check, key, place, len(icmp) == length and icmp[PAD_AT:PACKET_BYTES] == PAD)


def read_error(icmp: bytes, fmt: Format) -> Quoted | None:
    """An ICMP error that quotes an echo request inside the IP packet it is about, or None."""
    if len(icmp) < 9 or icmp[0] not in fmt.errors:
        return None
    quote = icmp[8:]
    if fmt is V4:
        if len(quote) < _IP4_HEADER or quote[9] != _ICMP:
            return None
        return read_quote(icmp[0], icmp[1], quote[16:20], quote[(quote[0] & 15) * 4 :], fmt)
    if len(quote) < _IP6_HEADER or quote[6] != _ICMP6:
        return None
    return read_quote(icmp[0], icmp[1], quote[24:40], quote[_IP6_HEADER:], fmt)


def read_quote(kind: int, code: int, destination: bytes, quote: bytes, fmt: Format) -> Quoted | None:
    """The same from its parts: `quote` begins at the quoted ICMP header, as an error queue hands it out."""
    if len(quote) < 8 or quote[0] != fmt.request:
        return None
    identity, sequence = struct.unpack_from("!HH", quote, 4)
    if len(quote) < CHECK_AT + _MINE.size:
        return Quoted(kind, code, destination, identity, sequence)
    return Quoted(kind, code, destination, identity, sequence, *_MINE.unpack_from(quote, CHECK_AT))


def _checksums(blank: bytes, checks: array[int]) -> array[int]:
    """The ones' complement sum is the same in either byte order, so it is made of this machine's numbers."""
    fixed = sum(struct.unpack(f"={PACKET_BYTES // 2}H", blank))
    sums = array("H")
    for place, check in enumerate(checks):
        total = (check & 0xFFFF) + (check >> 16 & 0xFFFF) + (check >> 32 & 0xFFFF) + (check >> 48)
        sums.append(~_folded(fixed + total + (place & 0xFFFF) + (place >> 16)) & 0xFFFF)
    return sums


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
