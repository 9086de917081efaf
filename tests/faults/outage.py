"""The server is away for a long time, in a moment: what faults 6, 7 and 8 share.

Both clocks stand so much in the past that they are right when the outage is over: what was measured before it is as old
as it says, and the server's limits on an agent's clock apply as they do in life.
"""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path

from pingmon_agent.ring import KEEP_S, Ring

from .fault import Findings
from .guards import plan
from .oracle import Key, Stored, read_logs
from .world import Run, World

GRAIN_S = 1.0  # how exactly a ring may hit its half hour
LAG_S, DRAINED_S = 5.0, 200.0
GUARDS = {
    "half-an-hour": "the ring keeps ten minutes only",
    "no-more": "the ring keeps two days",
}
_KEEPS = {"half-an-hour": 600.0, "no-more": 172_800.0}


class Outage:
    """A world before, during and after so many seconds without a server."""

    def __init__(self, run: Run, seconds: int, agents: int) -> None:
        self.run, self.seconds, self.found = run, seconds, Findings()
        self._clock = run.home / "clock"
        self._clock.write_text(str(-seconds))
        ring = functools.partial(Ring, keep_s=_KEEPS.get(run.without, KEEP_S))
        self.world = World(
            run, agents=agents, offset_s=-seconds, plan={"clock_file": str(self._clock), **plan(run)}, ring=ring
        )
        self.began_ms = 0.0

    def happen(self) -> Findings:
        """All of it, up to the oracle's word."""
        with self.world as world:
            world.start(settle_s=3.0)
            idle = resident_mib()
            self._be_away()
            grown = resident_mib() - idle
            self._come_back()
            world.fleet.drain()
            self.ask()
            world.stop_server()
            self.found.close(world.verdict(self.may_miss), allowed=self.seconds > KEEP_S)
        self.found.figures["ring_mib_per_agent"] = grown / len(world.fleet.agents)
        self._judge_ring()
        return self.found

    def ask(self) -> None:
        """What else is to be seen once all has arrived, while the server is still up."""

    def _be_away(self) -> None:
        world = self.world
        world.stop_server()
        self.began_ms = world.timeline.wall_ms()
        world.fleet.fast_forward(self.seconds)
        self._clock.write_text("0")
        for agent in world.fleet.agents:
            agent.delivery.first_report_ms = None

    def _come_back(self) -> None:
        fleet = self.world.fleet
        self.world.start_server()
        began = time.monotonic()
        fleet.wait_back()
        fleet.wait_delivered(DRAINED_S)
        self.found.figures["drain_s"] = time.monotonic() - began
        since = time.monotonic()
        time.sleep(3.0)
        lag = max(fleet.waits(since))
        self.found.figures["live_lag_s"] = lag
        self.found.require(lag <= LAG_S, f"after the backlog a live round took {lag:.1f} s")

    def _oldest_kept_ms(self, agent: str) -> float:
        told = next(a.delivery.first_report_ms for a in self.world.fleet.agents if a.name == agent)
        assert told is not None, f"{agent} reported nothing after the outage"
        return told - KEEP_S * 1000

    def may_miss(self, key: Key, at_ms: int) -> bool:
        """What was older than half an hour when its agent could speak again."""
        return self.seconds > KEEP_S and at_ms < self._oldest_kept_ms(key[0]) + GRAIN_S * 1000

    def _judge_ring(self) -> None:
        """Half an hour is also all that may come back."""
        created = read_logs(self.run.home).created
        stored = {row.key for row in Stored(self.world.server.data).rows}
        limit = {agent.name: self._oldest_kept_ms(agent.name) - GRAIN_S * 1000 for agent in self.world.fleet.agents}
        late = [key for key in stored if self.began_ms < created[key][0] < limit[key[0]]]
        self.found.figures["kept_too_long"] = len(late)
        self.found.require(not late, f"{len(late)} rounds came back that were older than half an hour")


def resident_mib() -> float:
    """Resident memory of this process, in which all simulated agents live."""
    return int(re.findall(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[0]) / 1024
