"""Fault 2: the server is killed inside a commit, between any two statements of it and on both sides of it."""

from __future__ import annotations

import os
import signal
from collections import Counter

from .fault import Fault, Findings
from .guards import UNTIL_ACKED, weaken
from .lives import Lives
from .oracle import Stored
from .stores import POINTS, EarlyRounds, FailingRounds, Failpoint, TornRounds, UnswappedRounds
from .world import Run

BASES = {"commit-first": EarlyRounds, "one-transaction": TornRounds, "one-swap": UnswappedRounds}


def run(run: Run) -> Findings:
    """Die at each of the four points in turn, in the first to sixth commit of a life."""
    found, deaths = Findings(), Counter[str]()
    runs, early, off = run.scale(200, 16), 0, 0
    lives = Lives(run, agents=4, spacing_s=1.0, batch=8)
    weaken(run, lives.agents.values())
    for number in range(runs):
        compaction = number % 8 >= 4  # the four points in turn in a commit, then in a compaction
        failpoint = Failpoint(run.rng.randint(1, 6), POINTS[number % len(POINTS)], compaction)
        store = type("Store", (BASES.get(run.without, FailingRounds),), {"failpoint": failpoint})
        with lives.life(store) as life:
            lives.pump(life, 20.0)
            deaths[failpoint.point] += os.WTERMSIG(life.end()) == signal.SIGKILL
        run.journal.note(f"killed {failpoint.point} of {failpoint.commit}, compaction: {compaction}, life {number}")
        stored = Stored(lives.data)
        off += stored.cursors != stored.highest()
        early += lives.acked_early()
    lives.measure(1)  # with which an agent says what it has given up
    lives.drain()
    found.close(lives.verdict())
    compacted = Stored(lives.data).compacted
    found.figures |= {"compacted": compacted, "kills": deaths.total(), "acked_early": early, "cursor_off": off}
    _judge(found, runs)
    return found


def _judge(found: Findings, runs: int) -> None:
    figures = found.figures
    found.require(figures["kills"] == runs, f"only {figures['kills']} of {runs} lives ended where they should")
    found.require(figures["compacted"] > 0, "nothing was ever compacted")
    found.require(not figures["acked_early"], f"{figures['acked_early']} rounds were acknowledged, not committed")
    found.require(not figures["cursor_off"], f"after {figures['cursor_off']} deaths a cursor was not the highest seq")


FAULT = Fault(
    number=2,
    title="kill -9 inside commit and compaction",
    inject="SIGKILL by SQLite's own trace of statements: before the insert, between insert and cursor, before COMMIT, "
    "after COMMIT before the acknowledgement; 200 lives of store and ingest in a child process, half of them "
    "ended inside a compaction",
    passes="nothing lost, doubled, changed or acknowledged early; the cursor is the highest seq stored, after each.",
    run=run,
    guards={
        "commit-first": "the server acknowledges one commit ahead",
        "one-transaction": "cursors are committed before the rounds, in a transaction of their own",
        "one-swap": "a chunk goes in and what it replaces goes out in transactions of their own",
        **UNTIL_ACKED,
    },
)
