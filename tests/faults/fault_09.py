"""Fault 9: the server's databases are those of a backup that is 25 minutes old."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from .fault import Fault, Findings
from .guards import AFTER_ACK, weaken
from .oracle import Stored
from .world import Run, World

AGE_MIN = 25


def run(run: Run) -> Findings:
    """A backup, 25 minutes of normal life, the backup restored."""
    found, clock, file = Findings(), run.home / "clock", run.home / "backup.tar"
    clock.write_text(str(-60 * AGE_MIN))
    agents = run.scale(20, 4)
    with World(run, agents=agents, offset_s=-60.0 * AGE_MIN, plan={"clock_file": str(clock)}) as world:
        weaken(run, world.fleet.agents)
        world.start()
        world.server.admin("backup", str(file))
        run.journal.note("backup made")
        _live(world, clock)
        world.stop_server()
        before = len(Stored(world.server.data).rows)
        world.server.admin("restore", str(file))
        gone = before - len(Stored(world.server.data).rows)
        run.journal.note(f"backup restored, {gone} rounds are gone")
        world.start_server()
        world.fleet.wait_back()
        drained = world.fleet.drain()
        world.stop_server()
        found.close(world.verdict())
        audited = _audited(world.server.data)
    found.figures |= {"rounds_gone": gone, "drain_s": drained, "audited": audited}
    found.require(gone >= 60 * AGE_MIN * agents, f"the backup lacked {gone} rounds only, so it proved little")
    found.require(audited == 1, "the audit table does not show the restore")
    return found


def _live(world: World, clock: Path) -> None:
    """Minute by minute, for a server does not believe rounds that are more than a minute ahead of it."""
    for minute in range(1, AGE_MIN + 1):
        clock.write_text(str(60 * (minute - AGE_MIN)))
        world.fleet.fast_forward(60)
        time.sleep(0.2)
    world.fleet.wait_delivered(120.0)


def _audited(data: Path) -> int:
    with closing(connect(data / "pingmon.db")) as db:
        return int(db.execute("SELECT count(*) FROM audit WHERE action = 'restore'").fetchone()[0])


FAULT = Fault(
    number=9,
    title="restore from an old backup",
    inject=f"a backup is made, {AGE_MIN} minutes pass with the server at work, it is stopped and the backup restored",
    passes="agents deliver once more what the backup lacks, the audit table shows the restore: nothing lost, doubled, "
    "changed.",
    run=run,
    guards=AFTER_ACK,
    short="a blacklisting made after the backup is undone by it, as the command says; audit chains are to come.",
)
