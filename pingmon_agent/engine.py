"""THE PROBING ENGINE: one pass over all targets, concurrently, through one socket per address family.

Each probe ends in a named outcome (wire.contract.Outcome) or a round-trip time between two kernel time stamps, so a
busy host does not invent latency. Sends are spread over a window in ticks; as replies are stamped by the kernel they
are read late and many at once. Own drops, stalls and clock steps void what they touched and are never called loss.
Must not know: the server, the schedule, names.
"""

from __future__ import annotations

import errno
import logging
import secrets
import select
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .addresses import Addresses, Key
from .icmp import FamilyUnavailableError, NoPermissionError
from .lane import Lane
from .log import say
from .losses import Losses
from .mmsg import require_64_bit
from .plan import STANDARD, Health, Plan, Probed, Refusal, Tally, Way
from .wire.contract import Outcome

_log = logging.getLogger(__name__)
_TICK_S = 0.05
_SMALLEST_TICK = 8  # probes: waking up costs more than sending a few
_READ_EVERY_S = 0.25
_GATHER_S = 0.05
_LONGEST_WAIT_S = 0.2  # how soon a stop is noticed
_EXTRA_TICKS = 20  # after the window, for what the kernel had no room for
_STEP_NS = 5_000_000
_LOOKS, _LOOK_NS = 10, 100_000
_SUSPENDED_NS = 100_000_000
_STAMPING_STARTS_S = 0.02  # the kernel turns time stamping on in a worker; the first stamps would be read-time ones
_RENEW_APART_S, _RENEW_EVERY_S = 60.0, 4 * 3600.0


@dataclass(frozen=True)
class _Clocks:
    """Offsets between the clocks, and what the kernel has dropped so far: compared before and after a round."""

    real_ns: int
    suspended_ns: int
    dropped: int


class EchoEngine:
    """plan.Engine over real ICMP sockets. One thread runs rounds; `stop` may be set by any."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        """Open the sockets; raises icmp.NoPermissionError if the kernel allows neither kind."""
        require_64_bit()
        self.tally = Tally()
        self._stop = stop or threading.Event()
        self._secret = secrets.token_bytes(32)
        self._lanes = _open_lanes(self.tally)
        self._active: list[Lane] = []  # those with targets
        self._round_no = 0
        self._targets = Addresses((), ())
        self._losses = Losses()
        self._renewed = _boot()
        time.sleep(_STAMPING_STARTS_S)

    @property
    def mode(self) -> str:
        """`raw` or `dgram`."""
        return "raw" if all(lane.socket.raw for lane in self._lanes.values()) else "dgram"

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions that can be probed."""
        return tuple(sorted({version for version, _ in self._lanes}))

    @property
    def room(self) -> int:
        """Packets that may wait unread in the smallest receive buffer."""
        return min(lane.socket.room for lane in self._lanes.values())

    def close(self) -> None:
        """Close the sockets."""
        for lane in self._lanes.values():
            lane.socket.close()

    def run_round(self, plan: Plan) -> Probed:
        """See Engine. Takes about `window_s`, and up to `timeout_s` more where a reply is missing."""
        self._round_no += 1
        self._load(plan.addresses, plan.ways)
        self._renew_if_due()
        for lane in self._active:
            lane.begin(self._secret, self._round_no)
        before, started_ms = self._clocks(), time.time_ns() // 1_000_000
        lateness = self._send_all(plan.window_s)
        self._gather(time.monotonic() + plan.timeout_s)
        return self._finish(plan, started_ms, before, lateness)

    # -- targets --

    def _load(self, addresses: Sequence[str | None], ways: Sequence[Way] | None) -> None:
        """Lay the packets out anew if the plan is not that of the round before."""
        before = self._targets
        if (addresses is before.addresses or addresses == before.addresses) and ways == before.ways:
            return
        self._targets = targets = Addresses(addresses, self.families, ways)
        self._losses = Losses()
        self._open_and_close(targets)
        for key, lane in self._lanes.items():
            lane.load(targets.names[key])
        self._active = [lane for key, lane in self._lanes.items() if targets.names[key]]

    def _open_and_close(self, targets: Addresses) -> None:
        """One lane per way of sending that is in use; where this host cannot send so, its probes are not sent."""
        for key in [key for key in self._lanes if key not in targets.names]:
            self._lanes.pop(key).socket.close()
        for version, way in [key for key in targets.names if key not in self._lanes]:
            try:
                self._lanes[version, way] = Lane(version, self.tally, way)
            except OSError as error:
                _log.warning("probes cannot be sent way=%s: %s", way, error.strerror)
                targets.unusable += len(targets.names[version, way])

    def _renew_if_due(self) -> None:
        """Take other ids every few hours, and where a target that is lost may be stuck in a firewall's table."""
        age = _boot() - self._renewed
        if age < _RENEW_APART_S or (age < _RENEW_EVERY_S and not self._losses.stuck):
            return
        self._renewed = _boot()
        self._losses.tried()
        try:
            for lane in self._lanes.values():
                lane.renew()
        except (NoPermissionError, FamilyUnavailableError, OSError) as err:
            _log.warning(say("cannot open a fresh ICMP socket, going on with the old one", reason=str(err)))
            return
        self.tally.identities += 1
        _log.info(say("ICMP ids changed", reason="a target is lost" if age < _RENEW_EVERY_S else "routine"))

    # -- sending --

    def _send_all(self, window_s: float) -> float:
        """Send in ticks spread over the window. What the kernel had no room for goes with the next tick."""
        ticks, begun, worst = self._ticks(window_s), _boot(), 0.0
        read_at = begun + _READ_EVERY_S
        for tick in range(1, ticks + 1):
            due = begun + (tick - 1) * window_s / ticks
            if not self._sleep_until(due):
                return worst
            now = _boot()
            worst = max(worst, now - due)
            for lane in self._active:
                lane.send_to(lane.flight.count * tick // ticks)
                if now >= read_at or lane.worth_reading:
                    lane.drain()
            if now >= read_at:
                read_at = now + _READ_EVERY_S
        self._send_rest()
        return worst

    def _ticks(self, window_s: float) -> int:
        """At least as many as the receive buffer needs, at most as many as 50 ms each allow, few for few probes."""
        ticks = 1
        for lane in self._active:
            wanted = min(int(window_s / _TICK_S), -(-lane.flight.count // _SMALLEST_TICK))
            needed = -(-lane.flight.count // lane.per_tick) if window_s > 0 else 1
            ticks = max(ticks, wanted, needed)
        return ticks

    def _send_rest(self) -> None:
        for _ in range(_EXTRA_TICKS):
            waiting = [lane for lane in self._active if not lane.send_to(lane.flight.count)]
            if not waiting or self._stop.wait(_TICK_S):
                return
            for lane in self._active:
                lane.drain()
        for lane in self._active:
            lane.give_up()

    def _sleep_until(self, due: float) -> bool:
        """False once told to stop."""
        while not self._stop.is_set():
            left = due - _boot()
            if left <= 0:
                return True
            time.sleep(min(left, _LONGEST_WAIT_S))
        return False

    # -- receiving --

    def _gather(self, deadline: float) -> None:
        """Read until everything has an outcome or the last probe's time is up. Replies are left to pile up a little."""
        lanes = self._active
        poll = select.poll()
        for lane in lanes:
            lane.drain()
            poll.register(lane.socket.fileno(), select.POLLIN)
        while any(lane.flight.waiting for lane in lanes) and not self._stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if poll.poll(min(left, _LONGEST_WAIT_S) * 1000):
                time.sleep(max(0.0, min(_GATHER_S, deadline - time.monotonic())))
                for lane in lanes:
                    lane.drain()
        for lane in lanes:
            lane.drain()

    # -- results --

    def _clocks(self) -> _Clocks:
        dropped = sum(lane.socket.overflow for lane in self._active)
        return _Clocks(_clock_offset_ns(), _suspended_ns(), dropped)

    def _health(self, before: _Clocks, lateness: float) -> Health:
        after = self._clocks()
        return Health(
            lateness_s=lateness,
            overflow=after.dropped - before.dropped,
            clock_step=abs(after.real_ns - before.real_ns) > _STEP_NS,
            suspended=after.suspended_ns - before.suspended_ns > _SUSPENDED_NS,
            stopped=self._stop.is_set(),
        )

    def _finish(self, plan: Plan, started_ms: int, before: _Clocks, lateness: float) -> Probed:
        health = self._health(before, lateness)
        samples = array("i", self._targets.blank)
        refusals: dict[int, Refusal] = {}
        unstamped = 0
        for lane in self._active:
            values = self._outcomes(lane, plan.timeout_s, health)
            unstamped += lane.flight.unstamped
            places = self._targets.places[lane.version, lane.way]
            if len(places) == len(samples):
                samples = array("i", values)
            else:
                for index, value in zip(places, values, strict=True):
                    samples[index] = value
            refusals |= {places[place]: refusal for place, (_, refusal) in lane.flight.errors.items()}
        health = replace(health, unstamped=unstamped)
        self._count(health)
        if not health.blind:
            self._losses.observe(samples)
        return Probed(samples=samples, started_ms=started_ms, disturbed=health.blind, health=health, refusals=refusals)

    def _outcomes(self, lane: Lane, timeout_s: float, health: Health) -> list[int]:
        """One per target of the lane. After a step of the clock no RTT can be trusted."""
        missing = Outcome.NOT_PROBED if health.blind else Outcome.TIMEOUT
        values, late = lane.outcomes(int(timeout_s * 1_000_000), missing)
        if health.clock_step:
            return [int(Outcome.NOT_PROBED) if value >= 0 else value for value in values]
        self.tally.late += late
        return values

    def _count(self, health: Health) -> None:
        tally = self.tally
        tally.overflow += health.overflow
        tally.unstamped += health.unstamped
        tally.clock_steps += health.clock_step
        tally.suspends += health.suspended
        if self._targets.unusable:
            errors = tally.send_errors
            errors[errno.EAFNOSUPPORT] = errors.get(errno.EAFNOSUPPORT, 0) + self._targets.unusable


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _clock_offset_ns() -> int:
    """Wall clock minus boot clock. Interrupted between its looks at them it looks again, or it would see a step."""
    for _ in range(_LOOKS):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        real = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after - before < _LOOK_NS:
            break
    return real - (before + after) // 2


def _suspended_ns() -> int:
    """How long this host has slept since it was booted."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _open_lanes(tally: Tally) -> dict[Key, Lane]:
    lanes = {}
    for version in (4, 6):
        try:
            lanes[version, STANDARD] = Lane(version, tally)
        except FamilyUnavailableError:
            continue  # `families` shows it, and each target of that family is NOT_SENT
    return lanes
