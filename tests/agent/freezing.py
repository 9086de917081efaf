"""`pingmon-agent` of which a thread stops when told to: `python -m tests.agent.freezing FILE run --config ...`.

FILE is looked at whenever one of these threads turns: `rounds` and `uplink` wait for ever, `dead` ends the uplink. What
a loop may take is shortened to what a test can wait for.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pingmon_agent import rounds, uplink
from pingmon_agent.cli import main as run_command
from pingmon_agent.schedule import Schedule


def arrange(order: Path) -> None:
    """Put what obeys in its place."""

    def word() -> str:
        return order.read_text() if order.exists() else ""

    class Freezing(Schedule):
        def wait_s(self) -> float | None:
            if word() == "rounds":
                threading.Event().wait()
            return super().wait_s()

    class Hanging(uplink.Uplink):
        def _wait(self, pause_s: float) -> None:
            super()._wait(min(pause_s, 0.1))
            if word() == "uplink":
                threading.Event().wait()
            if word() == "dead":
                raise SystemExit

    from pingmon_agent import agent

    assert {"Schedule", "Uplink"} <= set(vars(agent))
    vars(agent).update(Schedule=Freezing, Uplink=Hanging)
    vars(rounds).update(_SLACK_S=0.5, _LONGEST_WAIT_S=0.2)
    vars(uplink).update(_SLACK_S=0.5, _LONGEST_WAIT_S=0.2, _OPEN_S=0.5)


if __name__ == "__main__":
    arrange(Path(sys.argv[1]))
    sys.exit(run_command(sys.argv[2:]))
