"""THE PROBING ENGINE: one pass over all targets, concurrently, through one socket per address family.

Each probe ends in a named outcome (wire.contract.Outcome) or a round-trip time between two kernel time stamps, so a
busy host does not invent latency. Sends are spread over a window; replies may be read late, for they are stamped.
Must not know: the server, the schedule, names.
"""

from __future__ import annotations

import errno
import secrets
import socket
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .icmp import Arrival, EchoSocket, FamilyUnavailableError, Kind
from .plan import Plan, Probed, Tally
from .wire.contract import Outcome

_TICK_S = 0.05
_FIRST_NAP_S, _LONGEST_NAP_S = 0.002, 0.05
_AGAIN = (errno.EAGAIN, errno.ENOBUFS)
_LATE_S = 0.5  # a tick this late, or a clock this far off, and losses are no evidence against the network
_STEP_NS = 5_000_000
_STAMPING_STARTS_S = 0.02  # the kernel turns time stamping on in a worker; the first stamps would be read-time ones
SocketAddress = tuple[Any, ...]
_PENDING = -100  # inside a round only: sent, no outcome yet


@dataclass(slots=True)
class _Lane:
    """One address family: its socket and how far it has been read."""

    socket: EchoSocket
    unread: int = 0


@dataclass
class _Round:
    """The working state of one round, all columns in the order of the plan."""

    number: int
    plan: Plan
    salt: int
    out: array[int]
    sent_ns: array[int]
    received_ns: array[int]
    waiting: int = 0
    worst_lag_s: float = 0.0


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _clock_offset_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class EchoEngine:
    """plan.Engine over real ICMP sockets. One thread runs rounds; `stop` may be set by any."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        """Open the sockets; raises icmp.NoPermissionError if the kernel allows neither kind."""
        self.tally = Tally()
        self._stop = stop or threading.Event()
        self._cookie = secrets.token_bytes(8)
        self._lanes = _open_lanes(self._cookie)
        self._round_no = secrets.randbelow(1 << 16)
        self._last = array("i")
        self._destinations: dict[str, tuple[int, SocketAddress]] = {}
        time.sleep(_STAMPING_STARTS_S)

    @property
    def mode(self) -> str:
        """`raw` or `dgram`."""
        return "raw" if all(lane.socket.raw for lane in self._lanes.values()) else "dgram"

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions that can be probed."""
        return tuple(sorted(self._lanes))

    def close(self) -> None:
        """Close the sockets."""
        for lane in self._lanes.values():
            lane.socket.close()

    def run_round(self, plan: Plan) -> Probed:
        """See Engine. Takes about `window_s`, and up to `timeout_s` more where a reply is missing."""
        self._round_no = (self._round_no + 1) & 0xFFFFFFFF
        current = self._new_round(plan)
        self._know(plan.addresses)
        offset, dropped, started_ms = _clock_offset_ns(), self._overflow(), time.time_ns() // 1_000_000
        self._send_all(current)
        self._gather(current, time.monotonic() + plan.timeout_s)
        stepped = abs(_clock_offset_ns() - offset) > _STEP_NS
        lost_here = self._overflow() - dropped
        self.tally.overflow += lost_here
        self.tally.clock_steps += stepped
        samples = self._finish(current, stepped, blind=self._stop.is_set() or stepped or lost_here > 0)
        disturbed = stepped or lost_here > 0 or current.worst_lag_s > _LATE_S or self._stop.is_set()
        return Probed(samples=samples, started_ms=started_ms, disturbed=disturbed)

    def _new_round(self, plan: Plan) -> _Round:
        count = len(plan.addresses)
        zeros = bytes(8 * count)
        return _Round(
            number=self._round_no,
            plan=plan,
            # The sequence number alone must tell rounds apart: an error may quote no more than that.
            salt=(self._round_no * 40_503) & 0xFFFF,
            out=array("i", [Outcome.NOT_PROBED]) * count,
            sent_ns=array("q", zeros),
            received_ns=array("q", zeros),
        )

    def _know(self, addresses: Sequence[str | None]) -> None:
        """Turn new addresses into socket addresses once; drop what is no longer probed."""
        if len(self._destinations) > 2 * len(addresses) + 64:
            self._destinations.clear()
        for address in addresses:
            if address is not None and address not in self._destinations:
                self._destinations[address] = _destination(address)

    def _overflow(self) -> int:
        return sum(lane.socket.overflow for lane in self._lanes.values())

    # -- sending --

    def _send_all(self, current: _Round) -> None:
        """Send in ticks spread over the window. What the kernel had no room for is sent again at the next tick."""
        count, begun = len(current.out), _boot()
        ticks = max(1, min(count, int(current.plan.window_s / _TICK_S)))
        again: list[int] = []
        for tick in range(ticks):
            due = begun + tick * current.plan.window_s / ticks
            while (wait := due - _boot()) > 0 and not self._stop.wait(wait):
                pass
            if self._stop.is_set():
                return
            current.worst_lag_s = max(current.worst_lag_s, _boot() - due)
            again = self._send_some(current, [*again, *range(count * tick // ticks, count * (tick + 1) // ticks)])
            self._drain(current)
        for _ in range(20):
            if not again or self._stop.wait(_TICK_S):
                break
            again = self._send_some(current, again)
            self._drain(current)
        if again:
            self._refuse(errno.ENOBUFS, len(again))

    def _send_some(self, current: _Round, indexes: Sequence[int]) -> list[int]:
        again = []
        for index in indexes:
            refused = self._send_one(current, index)
            if refused in _AGAIN:
                again.append(index)
                self.tally.send_retries += 1
            elif refused:
                self._refuse(refused)
        return again

    def _refuse(self, reason: int, count: int = 1) -> None:
        self.tally.send_errors[reason] = self.tally.send_errors.get(reason, 0) + count

    def _send_one(self, current: _Round, index: int) -> int:
        address = current.plan.addresses[index]
        if address is None:
            current.out[index] = Outcome.UNRESOLVED
            return 0
        version, destination = self._destinations[address]
        lane = self._lanes.get(version)
        if lane is None:
            current.out[index] = Outcome.NOT_SENT
            return errno.EAFNOSUPPORT
        if lane.unread * 2 >= lane.socket.buffer_packets:
            self._drain(current)
        packet = lane.socket.packet((index & 0xFFFF) ^ current.salt, current.number, index)
        current.sent_ns[index] = time.time_ns()
        refused = lane.socket.send(packet, destination)
        if refused:
            current.out[index] = Outcome.NOT_SENT
            return refused
        current.out[index] = _PENDING
        current.waiting += 1
        lane.unread += 2  # a reply and a transmit stamp
        self.tally.sent += 1
        return 0

    # -- receiving --

    def _gather(self, current: _Round, deadline: float) -> None:
        """Read until everything has an outcome or the last probe's time is up."""
        nap = _FIRST_NAP_S
        self._drain(current)
        while current.waiting and (left := deadline - time.monotonic()) > 0:
            if self._stop.wait(min(nap, left)):
                return
            self._drain(current)
            nap = min(_LONGEST_NAP_S, nap * 1.5)
        self._drain(current)

    def _drain(self, current: _Round) -> None:
        for lane in self._lanes.values():
            lane.unread = 0
            for arrival in lane.socket.drain():
                self._take(current, arrival)

    def _take(self, current: _Round, arrival: Arrival) -> None:
        index = arrival.index if arrival.index >= 0 else arrival.sequence ^ current.salt
        if arrival.kind is Kind.FOREIGN or not 0 <= index < len(current.out):
            self.tally.foreign += 1
        elif arrival.round >= 0 and arrival.round != current.number:
            self._take_old(index, arrival)
        elif arrival.kind is Kind.SENT:
            self._take_stamp(current, index, arrival.stamp_ns)
        elif not _same_address(arrival.address, current.plan.addresses[index]):
            self.tally.foreign += 1
        elif arrival.kind is Kind.REPLY:
            self._take_reply(current, index, arrival.stamp_ns)
        elif current.out[index] == _PENDING and not current.received_ns[index]:
            current.out[index] = Outcome.UNREACHABLE
            current.waiting -= 1

    def _take_stamp(self, current: _Round, index: int, stamp_ns: int) -> None:
        """The kernel's stamp is later than ours, and nearer to the truth."""
        if stamp_ns >= current.sent_ns[index]:
            current.sent_ns[index] = stamp_ns

    def _take_reply(self, current: _Round, index: int, stamp_ns: int) -> None:
        if current.received_ns[index]:
            self.tally.duplicates += 1
            return
        current.received_ns[index] = stamp_ns or time.time_ns()
        if current.out[index] == _PENDING:
            current.waiting -= 1
        current.out[index] = _PENDING

    def _take_old(self, index: int, arrival: Arrival) -> None:
        if arrival.kind is not Kind.REPLY:
            return
        answered = index < len(self._last) and self._last[index] >= 0
        if answered:
            self.tally.duplicates += 1
        else:
            self.tally.late += 1

    def _finish(self, current: _Round, stepped: bool, blind: bool) -> array[int]:
        """RTTs from the stamps. After a step of the clock none can be trusted; a `blind` round cannot speak of loss."""
        out, timeout_us = current.out, int(current.plan.timeout_s * 1_000_000)
        missing = Outcome.NOT_PROBED if blind else Outcome.TIMEOUT
        for index, received in enumerate(current.received_ns):
            if out[index] != _PENDING:
                continue
            if not received:
                out[index] = missing
                continue
            rtt_us = max(0, received - current.sent_ns[index] + 500) // 1000
            late = rtt_us > timeout_us
            self.tally.late += late and not stepped
            out[index] = Outcome.NOT_PROBED if stepped else Outcome.TIMEOUT if late else rtt_us
        self._last = out
        return out


def _open_lanes(cookie: bytes) -> dict[int, _Lane]:
    lanes = {}
    for version in (4, 6):
        try:
            lanes[version] = _Lane(EchoSocket(version, cookie))
        except FamilyUnavailableError:
            continue  # `families` shows it, and each target of that family is NOT_SENT
    return lanes


def _destination(address: str) -> tuple[int, SocketAddress]:
    """(IP version, socket address); version 0, which no lane has, for an address this host cannot use."""
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    except OSError:
        return 0, ()  # a zone that names no interface here, say
    return (4 if found[0] == socket.AF_INET else 6), found[4]


def _same_address(answered: str, asked: str | None) -> bool:
    return asked is not None and answered == asked.partition("%")[0]
