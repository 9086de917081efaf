"""Fault 10: backups are made all the time while agents report."""

from __future__ import annotations

import time
from pathlib import Path
from sqlite3 import connect
from threading import Thread

from pingmon.store.backup import restore
from tests.bench.facts import percentile

from .fault import Fault, Findings
from .oracle import Stored, read_logs
from .world import Run, World

ACK_P99_S = 0.5
LOCKED_S = 1.0


def run(run: Run) -> Findings:
    """One backup after the other, each restored beside the server and looked through."""
    found, backups = Findings(), run.scale(30, 4)
    with World(run) as world:
        world.start()
        since, files = time.monotonic(), []
        for number in range(backups):
            files.append(run.home / f"{number}.tar")
            _back_up(run, world, files[-1])
            time.sleep(run.rng.uniform(0.2, 1.5))
        waits = world.fleet.waits(since)
        world.fleet.drain()
        bad = sum(_bad(world, file) for file in files)
        world.stop_server()
        found.close(world.verdict())
    p99 = percentile(waits, 0.99)
    found.figures |= {"backups": backups, "bad": bad, "ack_p99_s": p99, "ack_max_s": max(waits)}
    found.require(bad == 0, f"{bad} of {backups} backups were not whole")
    found.require(p99 <= ACK_P99_S, f"of 100 acknowledgements one takes {p99:.2f} s, {ACK_P99_S:g} are allowed")
    return found


def _back_up(run: Run, world: World, file: Path) -> None:
    locker = Thread(target=_keep_writers_out, args=(world.server.data / "samples.db",))
    if run.without == "unlocked":
        locker.start()
    world.server.admin("backup", str(file))
    run.journal.note(f"{file.name} made")
    if run.without == "unlocked":
        locker.join()


def _keep_writers_out(database: Path) -> None:
    db = connect(database, isolation_level=None, timeout=10)
    db.execute("BEGIN IMMEDIATE")
    time.sleep(LOCKED_S)
    db.execute("ROLLBACK")
    db.close()


def _bad(world: World, file: Path) -> bool:
    """Whether a backup is not whole: sound, with the cursors of its rounds, and with nothing that was not measured."""
    place = file.with_suffix("")
    problems = restore(file, place, time.time_ns() // 1_000_000, "faults").found.problems
    stored, created = Stored(place), read_logs(world.run.home).created
    strange = [row for row in stored.rows if created.get(row.key) != (row.at_ms, row.samples)]
    world.journal.note(f"{file.name}: {len(stored.rows)} rounds, {problems or 'sound'}")
    return bool(problems or stored.complaint or strange or stored.cursors != stored.highest() or not stored.rows)


FAULT = Fault(
    number=10,
    title="backup under load",
    inject="30 online backups within a minute, by `pingmon backup`",
    passes="each can be restored, is sound, has the cursors that fit its rounds and nothing that was not measured; 99 "
    "of 100 acknowledgements meanwhile within 0.5 s: nothing lost, doubled, changed.",
    run=run,
    guards={"unlocked": "whoever makes a backup keeps writers out for a second"},
)
