"""Fault 3: the server's host loses its power, and its disk what it was not told to write at once."""

from __future__ import annotations

from collections import Counter

from pingmon.store.rounds import SqliteRounds

from .fault import Fault, Findings
from .guards import AFTER_ACK, weaken
from .lives import Lives
from .oracle import Stored
from .powercut import cut
from .stores import TornRounds
from .world import Run


def run(run: Run) -> Findings:
    """Live for a moment, lose power, look at what is left, live on with that."""
    found, cuts = Findings(), run.scale(50, 5)
    lives = Lives(run, agents=4, spacing_s=0.1, batch=64)
    weaken(run, lives.agents.values())
    store = TornRounds if run.without == "one-transaction" else SqliteRounds
    tally = Counter[str]()
    for number in range(cuts):
        with lives.life(store) as life:
            lives.pump(life, run.rng.uniform(0.1, 0.9))
            life.kill()
        lost_bytes = cut(lives.data / "samples.db", run.rng)
        tally["cuts_that_lost"] += lost_bytes > 0
        run.journal.note(f"power cut {number}: {lost_bytes} bytes of the log lost")
        tally["integrity_bad"] += bool(Stored(lives.data, content=False).complaint)
        tally["rounds_rolled_back"] += lives.acked_early()
    lives.measure(1)  # with which an agent says what it has given up
    lives.drain()
    found.close(lives.verdict())
    tally["compacted"] = Stored(lives.data).compacted
    found.figures |= {"cuts": cuts, **tally}
    found.require(not tally["integrity_bad"], f"integrity_check complained after {tally['integrity_bad']} cuts")
    found.require(tally["rounds_rolled_back"] > 0, "no cut took an acknowledged round back, so none proved anything")
    found.require(tally["compacted"] > 0, "nothing was ever compacted")
    return found


FAULT = Fault(
    number=3,
    title="server power cut",
    inject="SIGKILL at a random moment, then the end of the WAL from a random byte on, or random sectors of it, taken "
    "away as far back as the last sync of synchronous=NORMAL; compaction is at work; 50 times on the same database",
    passes="the database opens, integrity_check is ok, agents send again from the lower cursor: nothing lost, doubled, "
    "changed.",
    run=run,
    guards={"one-transaction": "cursors are committed before the rounds, in a transaction of their own", **AFTER_ACK},
)
