"""Reads a socket dry and sorts what it finds into a Flight: stamps, replies, errors, and what is none of these.

A batch that is as expected (each message right, in the order of the targets) is taken over by loops in C. Any other
batch is looked at message by message, and what is odd in it one by one. First answer wins; nothing that is wrong in
its check word, key, source, length or padding is an answer. Must not know: schedules, targets by name.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from array import array
from collections import deque
from collections.abc import Iterator

from . import mmsg
from .flight import Flight
from .icmp import IP_RECVERR, IPV6_RECVERR, SO_TIMESTAMPING, EchoSocket
from .mmsg import CONTROL_AT, SLOTS, Inbox, constant
from .packet import (
    CHECK_AT,
    KEY_AT,
    PACKET_BYTES,
    PAD,
    PAD_AT,
    PLACE_AT,
    V4,
    Echo,
    Packets,
    Quoted,
    places_of,
    read_echo,
    read_error,
    read_quote,
)
from .plan import Refusal, Tally
from .wire.contract import Outcome

_MSG_ERRQUEUE = 0x2000
_STAMP_CONTROL = 64  # header and three times of two words
_ORIGIN_ICMP, _ORIGIN_ICMP6, _ORIGIN_STAMP = 2, 3, 4
_ORIGIN_STAMP_WORD = int(struct.unpack("=I", bytes([_ORIGIN_STAMP, 0, 0, 0]))[0])
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_CONTROL_HEADER = struct.Struct("=Qii")
_REMEMBERED_KEYS = 64
_TRIES = 64  # a pending error comes out once, in place of messages




def _word(first: int, second: int) -> int:
    """Two ints of a kernel structure as one word of a column."""
    return int(struct.unpack("=Q", struct.pack("=II", first, second))[0])


class Reader:
    """The inbox of one socket. `begin` it each round with the packets and addresses of the targets, then `drain`."""

    def __init__(self, sock: EchoSocket, tally: Tally) -> None:
        self._sock, self._tally, self._format = sock, tally, sock.format
        is4 = self._format is V4
        self._address = slice(4, 8) if is4 else slice(8, 24)  # of a socket address
        prefix = 20 if is4 and sock.raw else 0
        self._recverr = (socket.IPPROTO_IP, IP_RECVERR) if is4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
        self._inbox = inbox = Inbox(prefix)
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
            (inbox.column(body, "H"), constant("H", int(struct.unpack("=H", bytes([self._format.reply, 0]))[0]))),
        ]
        self._pads = [(inbox.column(body + PAD_AT + n, "Q"), constant("Q", w)) for n, w in _words(PAD)]
        self._stamp_shape = [
            *stamped,
            (inbox.control_lengths, constant("Q", _STAMP_CONTROL + (48 if is4 else 64))),
            (inbox.column(second + 8, "Q"), constant("Q", _word(*self._recverr))),
            (inbox.column(second + 16, "Q"), constant("Q", _word(errno.ENOMSG, _ORIGIN_STAMP_WORD))),
        ]
        self._older: deque[int] = deque(maxlen=_REMEMBERED_KEYS)
        self._ramp = mmsg.ramp("I", SLOTS)
        self._zeros = constant("q", 0)
        self._flight = self._before = Flight(0, 0, 0)
        self._packets: Packets | None = None

    def begin(self, flight: Flight, packets: Packets, names: array[int]) -> None:
        """From now on what is read belongs to `flight`, or is late. `names`: the socket addresses asked."""
        self._older.append(self._before.key)
        self._before, self._flight = self._flight, flight
        if packets is not self._packets:
            self._packets, self._checks = packets, memoryview(packets.checks)
            first, stride = (0, 2) if self._format is V4 else (1, 4)
            self._names, self._stride = memoryview(names).cast("B"), stride * 8
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
        if known >= count and key + count <= len(self._ramp) and keys == self._ramp[key : key + count]:
            if all(column[:count] == right[:count] for column, right in self._stamp_shape):
                flight.sent_s_view[place : place + count] = self._seconds[:count]
                flight.sent_ns_view[place : place + count] = self._nanos[:count]
                return
        for slot in range(count):
            self._take_from_error_queue(slot)

    def _take_from_error_queue(self, slot: int) -> None:
        seconds = nanos = origin = key = 0
        error = b""
        for level, kind, value in _controls(self._inbox.control(slot)):
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING) and len(value) >= 16:
                seconds, nanos = struct.unpack_from("=qq", value)
            elif (level, kind) == self._recverr and len(value) >= _EXTENDED_ERROR.size:
                error = value
        if not error:
            return
        _, origin, icmp_type, code, _, _, key = _EXTENDED_ERROR.unpack_from(error)
        if origin == _ORIGIN_STAMP:
            place, known = self._flight.place_of_key(key)
            if known:
                self._flight.sent_s[place], self._flight.sent_ns[place] = seconds, nanos
        elif origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
            asked = self._inbox.name(slot)[self._address]
            quoted = read_quote(icmp_type, code, asked, self._inbox.data(slot), self._format)
            self._take_error(quoted, error[_EXTENDED_ERROR.size :][self._address])

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
            self._take_odd(slot)

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

    def _take_odd(self, slot: int) -> None:
        """Anything at all: a wrong reply, a late one, a second one, an error, or a reply without a stamp."""
        data = self._inbox.data(slot)
        if self._format is V4 and self._sock.raw:
            data = data[(data[0] & 15) * 4 :] if data else data
        echo = read_echo(data)
        source = self._inbox.name(slot)[self._address]
        if data and data[0] in self._format.errors:
            self._take_error(read_error(data, self._format), source)
        elif echo is None or echo.kind != self._format.reply or echo.identity != self._sock.identity:
            self._tally.foreign += 1
        else:
            self._take_echo(echo, source, self._stamp(slot))

    def _stamp(self, slot: int) -> tuple[int, int]:
        for level, kind, value in _controls(self._inbox.control(slot)):
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING) and len(value) >= 16:
                return struct.unpack_from("=qq", value)
        self._flight.unstamped += 1
        return divmod(time.time_ns(), 1_000_000_000)

    def _take_echo(self, echo: Echo, source: bytes, stamp: tuple[int, int]) -> None:
        flight, tally = self._flight, self._tally
        if echo.key in (self._before.key, *self._older):
            self._take_late(echo, stamp)
        elif echo.key != flight.key or echo.place >= flight.count or self._checks[echo.place] != echo.check:
            # Its id is ours, so it is a damaged probe of ours if enough of it still is.
            damaged = echo.key == flight.key or (echo.place < flight.count and self._checks[echo.place] == echo.check)
            tally.corrupt += damaged
            tally.foreign += not damaged
        elif source != self._asked_address(echo.place):
            tally.wrong_source += 1
        elif not echo.intact:
            tally.corrupt += 1
        elif flight.came_s[echo.place]:
            tally.duplicates += 1
        else:
            flight.came_s[echo.place], flight.came_ns[echo.place] = stamp
            flight.answered += 1

    def _take_late(self, echo: Echo, stamp: tuple[int, int]) -> None:
        before, tally = self._before, self._tally
        if echo.key != before.key or echo.place >= before.count:
            tally.late += 1
        elif before.came_s[echo.place]:
            tally.duplicates += 1
        else:
            before.came_s[echo.place], before.came_ns[echo.place] = stamp
            tally.late += 1
            seconds, nanos = stamp[0] - before.sent_s[echo.place], stamp[1] - before.sent_ns[echo.place]
            tally.last_late_us = (seconds * 1_000_000_000 + nanos) // 1000

    # -- errors --

    def _take_error(self, quoted: Quoted | None, sender: bytes) -> None:
        place = self._place_of(quoted) if quoted is not None and quoted.identity == self._sock.identity else None
        if quoted is None or place is None:
            if quoted is None or quoted.key is None or quoted.key not in (self._before.key, *self._older):
                self._tally.foreign += 1
            return
        counted = (self._format.version, quoted.kind, quoted.code)
        self._tally.icmp_errors[counted] = self._tally.icmp_errors.get(counted, 0) + 1
        exceeded = quoted.kind == self._format.exceeded
        outcome = Outcome.TTL_EXCEEDED if exceeded else Outcome.UNREACHABLE
        self._flight.fail(place, outcome, Refusal(quoted.kind, quoted.code, _text(sender)))

    def _place_of(self, quoted: Quoted) -> int | None:
        """The probe of this round that an error is about. Its sequence number may be all that is quoted."""
        flight = self._flight
        if quoted.key is None:
            candidates = places_of(quoted.sequence, flight.salt, flight.count)
        elif quoted.key == flight.key and quoted.place is not None and quoted.place < flight.count:
            if self._checks[quoted.place] != quoted.check:
                return None
            candidates = range(quoted.place, quoted.place + 1)
        else:
            return None
        return next((p for p in candidates if p < flight.next and self._asked_address(p) == quoted.destination), None)

    def _asked_address(self, place: int) -> bytes:
        begin = place * self._stride
        return bytes(self._names[begin + self._address.start : begin + self._address.stop])


def _words(data: bytes) -> Iterator[tuple[int, int]]:
    return ((n, int(struct.unpack_from("=Q", data, n)[0])) for n in range(0, len(data), 8))


def _text(address: bytes) -> str:
    if len(address) not in (4, 16):
        return ""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _controls(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(level, kind, value) of each control message."""
    at = 0
    while at + _CONTROL_HEADER.size <= len(data):
        size, level, kind = _CONTROL_HEADER.unpack_from(data, at)
        if size < _CONTROL_HEADER.size:
            return
        yield level, kind, data[at + _CONTROL_HEADER.size : at + size]
        at += (size + 7) & ~7
