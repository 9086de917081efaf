"""Judges one message at a time: whatever did not fit into a batch of good replies or stamps.

A wrong reply, a late one, a second one, an error of a router, a reply without a stamp, or nothing of ours: each is
named and counted, any bytes may come, and only a reply that is right in everything counts as an answer.
Must not know: how messages are read, schedules, targets by name.
"""

from __future__ import annotations

import socket
import struct
import time
from array import array
from collections import deque
from collections.abc import Iterator

from .flight import Flight
from .icmp import IP_RECVERR, IPV6_RECVERR, SO_TIMESTAMPING, EchoSocket
from .mmsg import Inbox
from .packet import V4, Echo, Quoted, places_of, read_echo, read_error, read_quote
from .plan import Refusal, Tally
from .wire.contract import Outcome

ORIGIN_ICMP, ORIGIN_ICMP6, ORIGIN_STAMP = 2, 3, 4  # of a message in an error queue (linux/errqueue.h)
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_CONTROL_HEADER = struct.Struct("=Qii")
_TIME = struct.Struct("=qq")
_REMEMBERED_KEYS = 64


class Judge:
    """Works on the slots of an Inbox. `begin` it each round; `before` is the flight of the round before."""

    def __init__(self, sock: EchoSocket, inbox: Inbox, tally: Tally, length: int) -> None:
        """`length`: how many bytes of a right reply, from its ICMP header on, fit into a slot."""
        self._length = length
        self._sock, self._inbox, self._tally, self._format = sock, inbox, tally, sock.format
        is4 = self._format is V4
        self._address = slice(4, 8) if is4 else slice(8, 24)  # of a socket address
        self.recverr = (socket.IPPROTO_IP, IP_RECVERR) if is4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
        self._flight = self._before = Flight(-1, 0, 0)
        self._older: deque[int] = deque(maxlen=_REMEMBERED_KEYS)
        self._checks = self._names = memoryview(b"")
        self._stride = 0

    def begin(self, flight: Flight, checks: array[int], names: array[int], stride: int) -> None:
        """From now on messages belong to `flight`, or are late. `names`: socket addresses, each `stride` bytes long."""
        self._older.append(self._before.key)
        self._before, self._flight = self._flight, flight
        self._checks, self._names, self._stride = memoryview(checks), memoryview(names).cast("B"), stride

    def from_error_queue(self, slot: int) -> None:
        """A transmit stamp, or (ping sockets only) what a router said."""
        seconds = nanos = origin = key = 0
        error = b""
        for level, kind, value in _controls(self._inbox.control(slot)):
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING) and len(value) >= 16:
                seconds, nanos = _TIME.unpack_from(value)
            elif (level, kind) == self.recverr and len(value) >= _EXTENDED_ERROR.size:
                error = value
        if not error:
            return
        _, origin, icmp_type, code, _, _, key = _EXTENDED_ERROR.unpack_from(error)
        if origin == ORIGIN_STAMP:
            place, known = self._flight.place_of_key(key)
            if known:
                self._flight.sent_s[place], self._flight.sent_ns[place] = seconds, nanos
        elif origin in (ORIGIN_ICMP, ORIGIN_ICMP6):
            asked = self._inbox.name(slot)[self._address]
            quoted = read_quote(icmp_type, code, asked, self._inbox.data(slot), self._format)
            self._take_error(quoted, error[_EXTENDED_ERROR.size :][self._address])

    def message(self, slot: int) -> None:
        """Anything at all: a wrong reply, a late one, a second one, an error, or a reply without a stamp."""
        data = self._inbox.data(slot)
        if self._format is V4 and self._sock.raw:
            source, data = data[12:16], data[(data[0] & 15) * 4 :] if data else data
        else:
            source = self._inbox.name(slot)[self._address]
        echo = read_echo(data, self._length)
        if data and data[0] in self._format.errors:
            self._take_error(read_error(data, self._format), source)
        elif echo is None or echo.kind != self._format.reply or echo.identity != self._sock.identity:
            self._tally.foreign += 1
        else:
            self._take_echo(echo, source, self._stamp(slot))

    def _stamp(self, slot: int) -> tuple[int, int]:
        for level, kind, value in _controls(self._inbox.control(slot)):
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING) and len(value) >= 16:
                seconds, nanos = _TIME.unpack_from(value)
                return seconds, nanos
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
