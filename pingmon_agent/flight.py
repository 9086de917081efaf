"""THE ROUND OF ONE FAMILY in columns: when each probe left, when its reply came, or what else became of it.

A probe is known by its place: its number among the targets of this family. All times are two columns, seconds and
nanoseconds of CLOCK_REALTIME as the kernel gives them, 0 where it has not. Must not know: sockets, packets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from operator import sub

from .plan import Refusal
from .wire.contract import Outcome

_NS = 1_000_000_000


@dataclass(slots=True)
class _Burst:
    """Probes handed to the kernel by one call, and our own clock around it."""

    place: int
    count: int
    before_ns: int
    after_ns: int


class Flight:
    """`next`: the first place not sent yet. `refused`: why a place never left. `errors`: what routers said."""

    def __init__(self, key: int, salt: int, count: int) -> None:
        self.key, self.salt, self.count = key, salt, count
        zeros = bytes(8 * count)
        self.sent_s, self.sent_ns = array("q", zeros), array("q", zeros)
        self.came_s, self.came_ns = array("q", zeros), array("q", zeros)
        self.sent_s_view, self.sent_ns_view = memoryview(self.sent_s), memoryview(self.sent_ns)
        self.came_s_view, self.came_ns_view = memoryview(self.came_s), memoryview(self.came_ns)
        self.next = self.sent = self.answered = 0
        self.unstamped = 0  # what our own clock had to stand in for
        self.guessed: list[int] = []  # the places whose departure is our guess
        self.refused: dict[int, Outcome] = {}
        self.errors: dict[int, tuple[Outcome, Refusal]] = {}
        self._bursts: list[_Burst] = []
        # Transmit stamps are numbered: from `_keys[n]` on they belong to places from `_places[n]` on.
        self._keys: list[int] = []
        self._places: list[int] = []
        self._end_key = 0

    @property
    def waiting(self) -> int:
        """Probes that left and have no outcome yet."""
        return self.sent - self.answered - sum(not self.came_s[place] for place in self.errors)

    # -- what left --

    def left(self, place: int, count: int, before_ns: int, after_ns: int, *, keyed: bool) -> None:
        """The kernel took these. `keyed`: their stamps will carry the next numbers."""
        self.sent += count
        self._bursts.append(_Burst(place, count, before_ns, after_ns))
        if not keyed:
            return
        if not self._keys or self._places[-1] + self._end_key - self._keys[-1] != place:
            self._keys.append(self._end_key)
            self._places.append(place)
        self._end_key += count

    def restart_keys(self) -> None:
        """The numbers of the stamps begin again at 0."""
        self._keys.clear()
        self._places.clear()
        self._end_key = 0

    def place_of_key(self, key: int) -> tuple[int, int]:
        """(place, how many of the following numbers belong to the places following), or (0, 0) for an unknown one."""
        if key >= self._end_key:
            return 0, 0
        segment = bisect_right(self._keys, key) - 1
        end = self._keys[segment + 1] if segment + 1 < len(self._keys) else self._end_key
        return self._places[segment] + key - self._keys[segment], end - key

    # -- what came of it --

    def fail(self, place: int, outcome: Outcome, refusal: Refusal) -> None:
        """A router said that this probe cannot arrive; a reply that comes all the same still wins."""
        self.errors.setdefault(place, (outcome, refusal))

    def outcomes(self, timeout_us: int, missing: int) -> tuple[list[int], int]:
        """RTT in us or an Outcome for each place, and how many replies took longer than the timeout.

        `missing`: the Outcome of what got no answer in time. What was never tried to send is not probed.
        """
        self._guess_missing_stamps()
        # Most replies come within the second their probe left in, so nanoseconds tell all; the others are put right.
        found = [(nanos + 500) // 1000 for nanos in map(sub, self.came_ns, self.sent_ns)]
        for place, seconds in enumerate(map(sub, self.came_s, self.sent_s)):
            if seconds:
                nanos = seconds * _NS + self.came_ns[place] - self.sent_ns[place]
                found[place] = (nanos + 500) // 1000 if self.came_s[place] else missing
        late = 0
        if found and (max(found) > timeout_us or min(found) < 0):
            for place, value in enumerate(found):
                if self.came_s[place] and not 0 <= value <= timeout_us:
                    late += value > timeout_us
                    found[place] = missing if value > timeout_us else 0  # 0: a clock that was slewed back
        for place, outcome in self.refused.items():
            found[place] = outcome
        for place, (outcome, _) in self.errors.items():
            if not self.came_s[place]:
                found[place] = outcome
        found[self.next :] = [Outcome.NOT_PROBED] * (self.count - self.next)
        return found, late

    def _guess_missing_stamps(self) -> None:
        """Where the kernel stamped no departure: between our two looks at the clock, by the order of sending."""
        if 0 not in self.sent_s:
            return
        for burst in self._bursts:
            span = burst.after_ns - burst.before_ns
            for number in range(burst.count):
                place = burst.place + number
                if not self.sent_s[place]:
                    self.guessed.append(place)
                    at = burst.before_ns + span * (2 * number + 1) // (2 * burst.count)
                    self.sent_s[place], self.sent_ns[place] = divmod(at, _NS)
        self.unstamped += len(self.guessed)
