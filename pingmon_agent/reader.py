"""Reads a socket dry and sorts what it finds into a Flight: stamps, replies, errors, and what is none of these.

A batch that is as expected (each message right, in the order of the targets) is taken over by loops in C. Any other is
gone through message by message, and what is odd in it goes to the Judge. First answer wins; nothing that is wrong in
its check word, key, source, length or padding is an answer. Must not know: schedules, targets by name.
"""

from __future__ import annotations

import errno
import socket
import struct
from array import array
from collections.abc import Iterator

from . import mmsg
from .flight import Flight
from .icmp import SO_TIMESTAMPING, EchoSocket
from .judge import ORIGIN_STAMP, Judge
from .mmsg import CONTROL_AT, SLOTS, Inbox, constant
from .packet import CHECK_AT, KEY_AT, PACKET_BYTES, PAD, PAD_AT, PLACE_AT, V4, Packets
from .plan import Tally

_MSG_ERRQUEUE = 0x2000
_STAMP_CONTROL = 64  # header and three times of two words
_ORIGIN_STAMP_WORD = int(struct.unpack("=I", bytes([ORIGIN_STAMP, 0, 0, 0]))[0])
_TRIES = 64  # a pending error comes out once, in place of messages


def _word(first: int, second: int) -> int:
    """Two ints of a kernel structure as one word of a column."""
    return int(struct.unpack("=Q", struct.pack("=II", first, second))[0])


class Reader:
    """The inbox of one socket. `begin` it each round with the packets and addresses of the targets, then `drain`."""

    def __init__(self, sock: EchoSocket, tally: Tally) -> None:
        self._sock = sock
        is4 = sock.format is V4
        prefix = 20 if is4 and sock.raw else 0
        self._inbox = inbox = Inbox(prefix)
        self._judge = Judge(sock, inbox, tally)
        body, second = inbox.body_at, CONTROL_AT + _STAMP_CONTROL
        self._seconds, self._nanos = inbox.column(CONTROL_AT + 16, "q"), inbox.column(CONTROL_AT + 24, "q")
        self._stamp_keys = inbox.column(second + 28, "I")
        self._check, self._key = inbox.column(body + CHECK_AT, "Q"), inbox.column(body + KEY_AT, "Q")
        self._place = inbox.column(body + PLACE_AT, "I")
        self._sources = [inbox.column(at, "Q") for at in ((0, 8) if is4 else (8, 16))]
        stamped = [
            (inbox.column(CONTROL_AT, "Q"), constant("Q", _STAMP_CONTROL)),
            (inbox.column(CONTROL_AT + 8, "Q"), constant("Q", _word(socket.SOL_SOCKET, SO_TIMESTAMPING))),
        ]
        # What must hold for each message of a batch that is taken over as a whole.
        self._reply_shape = [
            *stamped,
            (inbox.control_lengths, constant("Q", _STAMP_CONTROL)),
            (inbox.lengths, constant("I", prefix + PACKET_BYTES)),
            (inbox.column(body, "H"), constant("H", int(struct.unpack("=H", bytes([sock.format.reply, 0]))[0]))),
        ]
        self._pads = [(inbox.column(body + PAD_AT + n, "Q"), constant("Q", w)) for n, w in _words(PAD)]
        self._stamp_shape = [
            *stamped,
            (inbox.control_lengths, constant("Q", _STAMP_CONTROL + (48 if is4 else 64))),
            (inbox.column(second + 8, "Q"), constant("Q", _word(*self._judge.recverr))),
            (inbox.column(second + 16, "Q"), constant("Q", _word(errno.ENOMSG, _ORIGIN_STAMP_WORD))),
        ]
        self._ramp = mmsg.ramp("I", SLOTS)
        self._zeros = constant("q", 0)
        self._flight = Flight(-1, 0, 0)
        self._packets: Packets | None = None

    def begin(self, flight: Flight, packets: Packets, names: array[int]) -> None:
        """From now on what is read belongs to `flight`, or is late. `names`: the socket addresses asked."""
        self._flight = flight
        first, stride = (0, 2) if self._sock.format is V4 else (1, 4)
        self._judge.begin(flight, packets.checks, names, stride * 8)
        if packets is not self._packets:
            self._packets, self._checks = packets, memoryview(packets.checks)
            self._asked = [memoryview(names)[first + n :: stride] for n in (0, 1)]
            self._ramp = mmsg.ramp("I", packets.count + SLOTS)
        self._key_now = constant("Q", flight.key)

    def drain(self) -> None:
        """Take over everything that waits: transmit stamps and router errors first, then replies."""
        for count in self._batches(_MSG_ERRQUEUE):
            self._take_stamps(count)
        for count in self._batches(0):
            self._take_replies(count)

    def drain_stamps(self) -> None:
        """Take over what waits in the error queue only."""
        for count in self._batches(_MSG_ERRQUEUE):
            self._take_stamps(count)

    def _batches(self, flags: int) -> Iterator[int]:
        tries = _TRIES
        while tries:
            got = self._inbox.receive(self._sock.fileno(), flags)
            if got > 0:
                yield got
            elif got == -errno.EBADF:
                raise OSError(errno.EBADF, "the ICMP socket was closed while it was read")
            elif got in (0, -errno.EAGAIN):
                return
            else:
                tries -= 1

    # -- transmit stamps --

    def _take_stamps(self, count: int) -> None:
        flight, keys = self._flight, self._stamp_keys[:count]
        key = keys[0]
        place, known = flight.place_of_key(key)
        in_order = known >= count and key + count <= len(self._ramp) and keys == self._ramp[key : key + count]
        if in_order and all(column[:count] == right[:count] for column, right in self._stamp_shape):
            flight.sent_s_view[place : place + count] = self._seconds[:count]
            flight.sent_ns_view[place : place + count] = self._nanos[:count]
            return
        for slot in range(count):
            self._judge.from_error_queue(slot)

    # -- replies --

    def _take_replies(self, count: int) -> None:
        flight, first = self._flight, self._place[0]
        end = first + count
        shaped = all(column[:count] == right[:count] for column, right in self._reply_shape)
        padded = all(column[:count] == right[:count] for column, right in self._pads)
        if (
            shaped
            and padded
            and end <= flight.count
            and self._place[:count] == self._ramp[first:end]
            and self._key[:count] == self._key_now[:count]
            and self._check[:count] == self._checks[first:end]
            and all(came[:count] == asked[first:end] for came, asked in zip(self._sources, self._asked, strict=True))
            and flight.came_s_view[first:end] == self._zeros[:count]
        ):
            flight.came_s_view[first:end] = self._seconds[:count]
            flight.came_ns_view[first:end] = self._nanos[:count]
            flight.answered += count
            return
        if not padded:
            odd: list[int] = list(range(count))
        else:
            odd = self._take_one_by_one(count, shaped)
        for slot in odd:
            self._judge.message(slot)

    def _take_one_by_one(self, count: int, shaped: bool) -> list[int]:
        """Take over what is right; returns the slots of the rest."""
        flight, came_s, came_ns = self._flight, self._flight.came_s, self._flight.came_ns
        checks, (asked, asked2), key_now, known = self._checks, self._asked, flight.key, flight.count
        odd = []
        rows = zip(
            range(count),
            [True] * count if shaped else self._well_shaped(count),
            self._key[:count].tolist(),
            self._place[:count].tolist(),
            self._check[:count].tolist(),
            self._sources[0][:count].tolist(),
            self._sources[1][:count].tolist(),
            self._seconds[:count].tolist(),
            self._nanos[:count].tolist(),
            strict=True,
        )
        for slot, good, key, place, check, source, source2, seconds, nanos in rows:
            if (
                good
                and key == key_now
                and place < known
                and checks[place] == check
                and asked[place] == source
                and asked2[place] == source2
                and not came_s[place]
            ):
                came_s[place], came_ns[place] = seconds, nanos
            else:
                odd.append(slot)
        flight.answered += count - len(odd)
        return odd

    def _well_shaped(self, count: int) -> list[bool]:
        columns = [map(right[0].__eq__, column[:count].tolist()) for column, right in self._reply_shape]
        return list(map(all, zip(*columns, strict=True)))


def _words(data: bytes) -> Iterator[tuple[int, int]]:
    return ((n, int(struct.unpack_from("=Q", data, n)[0])) for n in range(0, len(data), 8))
