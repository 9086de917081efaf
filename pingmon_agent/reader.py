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
from .packet import CHECK_AT, KEY_AT, PAD, PAD_AT, PLACE_AT, V4, Packets
from .plan import Tally

_MSG_ERRQUEUE = 0x2000
_STAMP_CONTROL = 64  # header and three times of two words
_ORIGIN_STAMP_WORD = int(struct.unpack("=I", bytes([ORIGIN_STAMP, 0, 0, 0]))[0])
_Rule = tuple[memoryview, memoryview]  # a column, and what it should be
_TRIES = 64  # a pending error comes out once, in place of messages


def _word(first: int, second: int) -> int:
    """Two ints of a kernel structure as one word of a column."""
    return int(struct.unpack("=Q", struct.pack("=II", first, second))[0])


class Reader:
    """The inbox of one socket. `begin` it each round with the packets and addresses of the targets, then `drain`."""

    def __init__(self, sock: EchoSocket, tally: Tally) -> None:
        self._sock = sock
        is4 = sock.format is V4
        self._in_header = is4 and sock.raw  # the sender's address: raw ICMPv4 comes with its IP header
        prefix = 20 if self._in_header else 0
        self._inbox = inbox = Inbox(prefix, named=not self._in_header)
        length = min(8 + sock.way.size, inbox.body_room)
        self._judge = Judge(sock, inbox, tally, length)
        body, second = inbox.body_at, CONTROL_AT + _STAMP_CONTROL
        self._seconds, self._nanos = inbox.column(CONTROL_AT + 16, "q"), inbox.column(CONTROL_AT + 24, "q")
        self._stamp_keys = inbox.column(second + 28, "I")
        self._place, self._key = inbox.column(body + PLACE_AT, "I"), inbox.column(body + KEY_AT, "Q")
        # What differs by target and must be as we know it: the check word, and the address in one or two words.
        if self._in_header:
            sender = [inbox.column(body - 8, "I")]
        else:
            sender = [inbox.column(at, "Q") for at in ((0,) if is4 else (8, 16))]
        self._theirs = [inbox.column(body + CHECK_AT, "Q"), *sender]
        self._known: list[array[int]] = [array("Q") for _ in self._theirs]
        self._known_views = [memoryview(known) for known in self._known]
        stamped = [
            (inbox.column(CONTROL_AT, "Q"), constant("Q", _STAMP_CONTROL)),
            (inbox.column(CONTROL_AT + 8, "Q"), constant("Q", _word(socket.SOL_SOCKET, SO_TIMESTAMPING))),
        ]
        # What must hold for each message of a batch that is taken over as a whole.
        self._reply_shape = [
            *stamped,
            (inbox.control_lengths, constant("Q", _STAMP_CONTROL)),
            (inbox.lengths, constant("I", prefix + length)),
            (inbox.column(body, "H"), constant("H", int(struct.unpack("=H", bytes([sock.format.reply, 0]))[0]))),
            *((inbox.column(body + PAD_AT + n, "Q"), constant("Q", word)) for n, word in _words(PAD)),
        ]
        self._stamp_shape = [
            *stamped,
            (inbox.control_lengths, constant("Q", _STAMP_CONTROL + (48 if is4 else 64))),
            (inbox.column(second + 8, "Q"), constant("Q", _word(*self._judge.recverr))),
            (inbox.column(second + 16, "Q"), constant("Q", _word(errno.ENOMSG, _ORIGIN_STAMP_WORD))),
        ]
        self._ramp = mmsg.ramp("I", SLOTS)
        self._zeros = constant("q", 0)
        self._flight = Flight(-1, 0, 0)
        self._key_now = constant("Q", 0)
        self._packets: Packets | None = None

    def begin(self, flight: Flight, packets: Packets, names: array[int]) -> None:
        """From now on what is read belongs to `flight`, or is late. `names`: the socket addresses asked."""
        self._flight = flight
        stride = 2 if self._sock.format is V4 else 4
        self._judge.begin(flight, packets.checks, names, stride * 8)
        if packets is not self._packets:
            self._packets = packets
            # Arrays are quicker to look one value up in, views to compare many.
            self._known = [packets.checks, *self._addresses(names)]
            self._known_views = [memoryview(known) for known in self._known]
            self._ramp = mmsg.ramp("I", packets.count + SLOTS)
        self._key_now = constant("Q", flight.key)

    def _addresses(self, names: array[int]) -> list[array[int]]:
        """What the senders' columns should hold, by place."""
        if self._in_header:
            return [array("I", memoryview(names).cast("B").cast("I")[1::4])]
        return [names[0::2]] if self._sock.format is V4 else [names[1::4], names[2::4]]

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
        bare = self._sock.raw and flags == _MSG_ERRQUEUE  # raw sockets have nothing but stamps there
        while tries:
            got = self._inbox.receive(self._sock.fileno(), flags, bare=bare)
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
        begin = 0
        for odd in (*self._misshapen(0, count, self._stamp_shape), count):
            while begin < odd:
                begin += self._take_run(begin, odd)
            if odd < count:
                self._judge.from_error_queue(odd)
            begin = odd + 1

    def _take_run(self, begin: int, end: int) -> int:
        """Take over stamps from slot `begin` on whose probes left one after the other: how many."""
        flight, keys = self._flight, self._stamp_keys[begin:end]
        key = keys[0]
        place, known = flight.place_of_key(key)
        count = min(known, end - begin)
        if not count or key + count > len(self._ramp) or keys[:count] != self._ramp[key : key + count]:
            self._judge.from_error_queue(begin)
            return 1
        flight.sent_s_view[place : place + count] = self._seconds[begin : begin + count]
        flight.sent_ns_view[place : place + count] = self._nanos[begin : begin + count]
        return count

    # -- replies --

    def _take_replies(self, count: int) -> None:
        misshapen = self._misshapen(0, count, self._reply_shape)
        if misshapen or not (self._take_in_order(count) or self._take_shuffled(count)):
            for slot in self._take_one_by_one(count, misshapen):
                self._judge.message(slot)

    def _take_in_order(self, count: int) -> bool:
        """Whether the batch was all right and in the order of the targets."""
        flight, first = self._flight, self._place[0]
        end = first + count
        if (
            end > flight.count
            or self._place[:count] != self._ramp[first:end]
            or self._key[:count] != self._key_now[:count]
            or any(a[:count] != b[first:end] for a, b in zip(self._theirs, self._known_views, strict=True))
            or flight.came_s_view[first:end] != self._zeros[:count]
        ):
            return False
        flight.came_s_view[first:end] = self._seconds[:count]
        flight.came_ns_view[first:end] = self._nanos[:count]
        flight.answered += count
        return True

    def _take_shuffled(self, count: int) -> bool:
        """Whether the batch was all right, in whatever order."""
        flight, places = self._flight, self._place[:count].tolist()
        came_s, came_ns = flight.came_s, flight.came_ns
        if (
            max(places) >= flight.count
            or self._key[:count] != self._key_now[:count]
            or any(
                list(map(known.__getitem__, places)) != theirs[:count].tolist()
                for theirs, known in zip(self._theirs, self._known, strict=True)
            )
            or len(set(places)) < count
            or any(map(came_s.__getitem__, places))
        ):
            return False
        for place, seconds, nanos in zip(
            places, self._seconds[:count].tolist(), self._nanos[:count].tolist(), strict=True
        ):
            came_s[place], came_ns[place] = seconds, nanos
        flight.answered += count
        return True

    def _take_one_by_one(self, count: int, misshapen: list[int]) -> list[int]:
        """Take over what is right; returns the slots of the rest."""
        flight, came_s, came_ns = self._flight, self._flight.came_s, self._flight.came_ns
        key_now, known, (checks, asked, asked2) = flight.key, flight.count, (*self._known, self._known[-1])[:3]
        check_column, source_column, source2_column = (*self._theirs, self._theirs[-1])[:3]
        odd = []
        shaped = [True] * count
        for slot in misshapen:
            shaped[slot] = False
        rows = zip(
            range(count),
            shaped,
            self._key[:count].tolist(),
            self._place[:count].tolist(),
            check_column[:count].tolist(),
            source_column[:count].tolist(),
            source2_column[:count].tolist(),
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

    def _misshapen(self, begin: int, end: int, shape: list[_Rule]) -> list[int]:
        """The slots that differ from what a batch should look like, by halving."""
        if all(column[begin:end] == right[begin:end] for column, right in shape):
            return []
        if end - begin == 1:
            return [begin]
        middle = (begin + end) // 2
        return self._misshapen(begin, middle, shape) + self._misshapen(middle, end, shape)


def _words(data: bytes) -> Iterator[tuple[int, int]]:
    return ((n, int(struct.unpack_from("=Q", data, n)[0])) for n in range(0, len(data), 8))
