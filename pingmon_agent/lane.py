"""One address family and way of sending at work: its socket, its probes, how they leave and when replies are read.

Sends stop where the kernel refuses a packet: its errno is kept, the rest goes on. Must not know: schedules, names, the
other family.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from operator import or_

from . import mmsg
from .flight import Flight
from .icmp import EchoSocket
from .packet import PACKET_BYTES, PAYLOAD_BYTES, Packets, round_key
from .plan import STANDARD, Tally, Way
from .reader import Reader
from .wire.contract import Outcome

_LONGEST_CALL = 1024  # the kernel takes no more at once
_UNSTAMPED_CALL = 16  # where the kernel stamps no departures our own clock has to do, so look at it more often
_MOST_UNREAD = 8_000
_WORTH_READING = 1_000  # measured: 5 to 8 % cheaper than reading 5,000 at a time, where 100 at a time is dearer
# Refused before the kernel numbers a stamp for the packet; after any other refusal the numbering is in doubt.
_NO_STAMP_NUMBER = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT)
_ROUNDS_TO_LEARN = 3  # which targets get stamps: some devices give none
_TRIES = 3  # a ping socket first hands out pending errors of earlier packets


class Lane:
    """The targets of one IP version. `load` them, then per round: `begin`, `send_to` and `drain`, read the flight."""

    def __init__(self, version: int, tally: Tally, way: Way = STANDARD) -> None:
        """Open the socket; raises as icmp.EchoSocket does."""
        self.version, self._tally, self.way = version, tally, way
        self._names: Sequence[bytes] = ()
        self._adopt(EchoSocket(version, way))

    def _adopt(self, sock: EchoSocket) -> None:
        self.socket = sock
        self._reader = Reader(sock, self._tally)
        self._most_unread = min(_MOST_UNREAD, sock.room)
        self._chunk = _LONGEST_CALL
        self._again: list[int] = []
        self._unread = self._tries = 0
        self._doubtful = False  # whether the number of the next transmit stamp is
        self.load(self._names)

    def load(self, names: Sequence[bytes]) -> None:
        """Probe these socket addresses from the next round on. Takes about 1.5 us for each."""
        self._names = names
        with_checksum = self.socket.raw and self.version == 4
        self._packets = Packets(self.socket.format, self.socket.identity, len(names), with_checksum=with_checksum)
        stride = 16 if self.version == 4 else 32
        self._addresses = mmsg.packed(stride, names)
        size = 16 if self.version == 4 else 28
        extra = self.way.size - PAYLOAD_BYTES
        self._outbox = mmsg.Outbox(self._packets.words, PACKET_BYTES, self._addresses, size, stride, extra)
        self.flight = Flight(-1, 0, len(names))
        self._stampable = bytearray(len(names))
        self._rounds = 0

    def renew(self) -> None:
        """Go on under another id, on a fresh socket: a firewall may be stuck with the old one."""
        old = self.socket
        self._adopt(EchoSocket(self.version, self.way))
        old.close()

    def begin(self, secret: bytes, number: int) -> None:
        """Start round `number`. What still waits at the socket belongs to rounds before, and is late."""
        if self.flight.unstamped:
            self._chunk = _UNSTAMPED_CALL if self.flight.unstamped * 2 > self.flight.sent else _LONGEST_CALL
        # The sequence number alone must tell rounds apart: an error may quote no more than that.
        key, salt = round_key(secret, number), number * 40_503 & 0xFFFF
        self._packets.renumber(key, salt)
        self.flight = Flight(key, salt, len(self._names))
        self._reader.begin(self.flight, self._packets, self._addresses)
        self.drain()
        self._again, self._tries = [], 0
        self._restart_stamps()

    def drain(self) -> None:
        """Read everything that waits."""
        self._unread = 0
        self._reader.drain()

    @property
    def worth_reading(self) -> bool:
        """Whether so much may wait by now that it is cheaper read while it is in the cache, or must not pile up."""
        return self._unread >= min(_WORTH_READING, self._most_unread // 2)

    @property
    def per_tick(self) -> int:
        """As many probes as may leave at once if their replies are to fit into the receive buffer."""
        return max(1, self._most_unread // 4)

    # -- sending --

    def send_to(self, end: int) -> bool:
        """Send what is left before place `end`, and what was put off; False if some of it must wait once more."""
        again, self._again = self._again, []
        for place in again:
            self._send(place, 1, repeated=True)
        flight = self.flight
        while flight.next < end:
            if self._unread + 2 > self._most_unread:
                self.drain()
            room = max(1, (self._most_unread - self._unread) // 2)
            done = self._send(flight.next, min(end - flight.next, room, self._chunk))
            if done < 0:
                return False
            flight.next += done
        return not self._again

    def outcomes(self, timeout_us: int, missing: int) -> tuple[list[int], int]:
        """As Flight.outcomes, but what this host dropped after taking it (a full queue, a filter) was not sent.

        The kernel stamps a packet where it hands it to the device: a silent target without a stamp, which had one
        before, was never asked.
        """
        flight = self.flight
        if self._rounds < _ROUNDS_TO_LEARN:
            self._rounds += 1
            self._stampable[:] = bytes(map(bool, map(or_, self._stampable, map(bool, flight.sent_s))))
        found, late = flight.outcomes(timeout_us, missing)
        for place in flight.guessed:
            if found[place] == missing and self._stampable[place]:
                self._refuse(place, errno.ENOBUFS)
                found[place] = Outcome.NOT_SENT
        return found, late

    def give_up(self) -> None:
        """There is no time to send the rest of the round: it was not sent, for want of buffer."""
        flight = self.flight
        for place in (*self._again, *range(flight.next, flight.count)):
            self._refuse(place, errno.ENOBUFS)
        self._again, flight.next = [], flight.count

    def _send(self, place: int, count: int, *, repeated: bool = False) -> int:
        """How many places are dealt with; -1 if the socket's own buffer is full."""
        flight = self.flight
        if self._doubtful:
            count = 1
        before = time.time_ns()
        sent = self._outbox.send(self.socket.fileno(), place, count)
        if sent > 0:
            flight.left(place, sent, before, time.time_ns(), keyed=not self._doubtful)
            self._tally.sent += sent
            self._unread += 2 * sent  # a reply and a transmit stamp
            if self._doubtful:
                self._restart_stamps()
            self._doubtful, self._tries = sent < count, 0  # the one after the last was tried and refused
            return sent
        return self._refused(place, -sent, repeated)

    def _refused(self, place: int, reason: int, repeated: bool) -> int:
        self._tries += 1
        if reason == errno.EAGAIN:
            self._doubtful, self._tries = True, 0
            self._tally.send_retries += 1
            if repeated:
                self._again.append(place)
            return -1
        if not self.socket.raw and self._tries < _TRIES:
            self._doubtful = True
            return self._send(place, 1, repeated=repeated)
        self._tries = 0
        if reason in _NO_STAMP_NUMBER:
            self._doubtful = False
        else:
            self._restart_stamps()
        if reason == errno.ENOBUFS:
            self._tally.send_retries += 1
            self._again.append(place)
        else:
            self._refuse(place, reason)
        return 1

    def _refuse(self, place: int, reason: int) -> None:
        self.flight.refused[place] = Outcome.REFUSED_BY_POLICY if reason == errno.EPERM else Outcome.NOT_SENT
        self._tally.send_errors[reason] = self._tally.send_errors.get(reason, 0) + 1

    def _restart_stamps(self) -> None:
        self._doubtful = False
        self._reader.drain_stamps()
        self.flight.restart_keys()
        self.socket.restart_stamps()
