"""What was measured between one agent and one target. For now the last hour, from memory."""

from __future__ import annotations

from typing import Any

from pingmon_agent.wire.contract import status_of

from .clock import Clock
from .recent import KEEP_MS, Recent
from .registry import Registry


class History:
    """Reads; decides nothing."""

    def __init__(self, registry: Registry, recent: Recent, clock: Clock) -> None:
        self._registry, self._recent, self._clock = registry, recent, clock

    def pair(self, agent_ref: str, target_ref: str) -> dict[str, Any]:
        """The body of `/monitoring/<agent>/<target>`: the last hour, oldest first. Raises NotFound, Conflict.

        `timestamp` is unix seconds, `rtt_ms` null where nothing came back, `status` ok, timeout, unreachable or error.
        """
        agent, target = self._registry.agent(agent_ref), self._registry.target(target_ref)
        rows = self._recent.pair(agent.no, target.id, self._clock.wall_ms() - KEEP_MS)
        return {
            "agent": agent.hostname,
            "target": target.name,
            "interval_s": self._registry.interval_s,
            "samples": [
                {"timestamp": ms / 1000, "rtt_ms": us / 1000 if us >= 0 else None, "status": status}
                for ms, us, _ in rows
                if (status := status_of(us)) is not None
            ],
        }
