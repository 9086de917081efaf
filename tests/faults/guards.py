"""Guards that can be taken away with `--without`, to see that a fault then does not pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pingmon_agent import uplink

from .agents import SimAgent
from .world import Run

UNTIL_ACKED = {"kept-until-acked": "agents do not send again what they have sent once"}
AFTER_ACK = {"kept-after-ack": "agents do not send again what was acknowledged once"}
TIMEOUTS = {"timeouts": "neither side ever gives up waiting for the other"}
NEVER_S = 600
_FORGETS = {"kept-until-acked": "sent", "kept-after-ack": "acked"}
_STORES = {"commit-first": "early", "one-transaction": "torn", "honest-errors": "lying", "known-cursors": "forgetful"}


def weaken(run: Run, agents: Iterable[SimAgent]) -> None:
    """Take away what `run.without` names at the agents."""
    if run.without in TIMEOUTS:
        uplink.ACK_TIMEOUT_S = NEVER_S  # a fault has a process of its own
    for agent in agents:
        agent.delivery.forgets = _FORGETS.get(run.without, "")


def plan(run: Run) -> dict[str, Any]:
    """The plan of a server from which is taken away what `run.without` names."""
    if run.without in TIMEOUTS:
        return {"ping_timeout_s": NEVER_S}
    return {"store": _STORES[run.without]} if run.without in _STORES else {}
