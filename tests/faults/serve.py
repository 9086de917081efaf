"""`pingmon serve` with something wrong in it: `python -m tests.faults.serve PLAN.json CONFIG`.

The plan may name a store of stores.py, a delay of each commit, a file with the step of the clock in seconds, how often
retention runs and how patient the server is with silent connections. All else is the program as it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def step_clock(file: Path) -> None:
    """From now on the whole process takes its wall clock from the real one and the seconds in `file`."""
    real = time.time_ns

    def time_ns() -> int:
        return real() + round(float(file.read_text() or 0) * 1e9)

    time.time_ns, seconds = time_ns, lambda: time_ns() / 1e9
    time.time = seconds


def arrange(plan: dict[str, Any]) -> Callable[[list[str]], int]:
    """Put what the plan names in its place; returns the command line's `run`."""
    from pingmon import app
    from pingmon.adapters import jobs
    from pingmon.cli.main import run
    from pingmon.services import bundle

    from . import stores

    stores.SlowRounds.delay_s = float(plan.get("delay_s", 0))
    assert "SqliteRounds" in vars(bundle), "the store has another name now; give it to the plan here"
    if "store" in plan:
        vars(bundle)["SqliteRounds"] = stores.STORES[plan["store"]]
    jobs.RETENTION_EVERY_S = plan.get("retention_every_s", jobs.RETENTION_EVERY_S)
    app.PING_TIMEOUT_S = plan.get("ping_timeout_s", app.PING_TIMEOUT_S)
    return run


def main(plan_file: str, config: str) -> int:
    """As `pingmon.__main__` does it: patch first, then import everything else."""
    plan = json.loads(Path(plan_file).read_text())
    if "clock_file" in plan:
        step_clock(Path(plan["clock_file"]))
    from pingmon import concurrency

    concurrency.install()
    return arrange(plan)(["serve", "--config", config])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
