"""Fault 2: the server is killed inside a commit, between any two statements of it and on both sides of it."""

from __future__ import annotations

import os
import signal
from collections import Counter

from .fault import Fault, Findings
from .guards import UNTIL_ACKED, weaken
from .lives import Lives
from .oracle import Stored
from .stores import POINTS, EarlyRounds, FailingRounds, Failpoint, TornRounds
from .world import Run

BASES = {"commit-first": EarlyRounds, "one-transaction": TornRounds}


def run(run: Run) -> Findings:
    """Die at each of the four points in turn, in the first to sixth commit of a life."""
    found, deaths = Findings(), Counter[str]()
    runs, early, off = run.scale(200, 16), 0, 0
    lives = Lives(run, agents=4, spacing_s=1.0, batch=8)
    weaken(run, lives.agents.values())
    for number in range(runs):
        failpoint = Failpoint(run.rng.randint(1, 6), POINTS[number % len(POINTS)])
        store = type("Store", (BASES.get(run.without, FailingRounds),), {"failpoint": failpoint})
        with lives.life(store) as life:
            lives.pump(life, 20.0)
            deaths[failpoint.point] += os.WTERMSIG(life.end()) == signal.SIGKILL
        run.journal.note(f"killed {failpoint.point}, commit {failpoint.commit} of life {number}")
        stored = Stored(lives.data)
        off += stored.cursors != stored.highest()
        early += lives.acked_early()
    lives.drain()
    found.close(lives.verdict())
    found.figures |= {"kills": deaths.total(), "acked_early": early, "cursor_off": off}
    found.require(deaths.total() == runs, f"only {deaths.total()} of {runs} lives ended at their point: {dict(deaths)}")
    found.require(early == 0, f"{early} rounds were acknowledged before they were committed")
    found.require(off == 0, f"after {off} deaths a cursor was not the highest seq stored")
    return found


FAULT = Fault(
    number=2,
    title="kill -9 inside the commit",
    inject="SIGKILL by SQLite's own trace of statements: before the insert, between insert and cursor, before COMMIT, "
    "after COMMIT before the acknowledgement; 200 lives of store and ingest in a child process",
    passes="nothing lost, doubled, changed or acknowledged early; the cursor is the highest seq stored, after each.",
    run=run,
    guards={
        "commit-first": "the server acknowledges one commit ahead",
        "one-transaction": "cursors are committed before the rounds, in a transaction of their own",
        **UNTIL_ACKED,
    },
)
