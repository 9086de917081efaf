"""Roll-ups in SQL: which hours are due, one hour of one agent worked out, saved, read, dropped.

Rows hold the targets of 32 neighbouring ids, so that one pair over months is one range of the key. An hour is due while
more of its rounds are stored than were worked in: late rounds make it due again, retention never does.
Raw sqlite3, so it may run in native threads (`run_blocking`). Must not know: when, and who calls.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from .compaction import HOUR_MS
from .rollups import Cell, Rollup, cell, decode, encode, excuse, hour_of, rollup

MINUTE_MS = 60_000
MINUTES = 60
SHELF = 32  # targets per row
DROP_ROWS = 500
SHELVES_AT_ONCE = 2  # 64 targets' hour at a time: more objects would set the garbage collector off, which stops the hub
Sets = Mapping[int, Sequence[int]]  # revision -> target id of each column
Packed = tuple[int, bytes, bytes]  # shelf, minutes, hour
Round: TypeAlias = "tuple[int, int, bool, array[int]]"  # started_ms, revision, disturbed, samples
Worked: TypeAlias = "dict[int, dict[int, tuple[Cell, list[int]]]]"  # target -> minute -> (cell, ordered replies)


@dataclass(frozen=True)
class DueHour:
    """An agent's hour (counted from 1970) of which `rounds` are stored, under these revisions."""

    agent_no: int
    hour: int
    rounds: int
    revisions: tuple[int, ...]


@dataclass(frozen=True)
class RolledHour:
    """An hour worked out, ready to be saved."""

    due: DueHour
    packed: list[Packed]


def due(db: sqlite3.Connection, before_ms: int) -> list[DueHour]:
    """Hours that began before then and of which not all rounds are worked in, oldest first."""
    found: list[DueHour] = []
    for (agent_no,) in db.execute("SELECT DISTINCT agent_no FROM epochs ORDER BY agent_no").fetchall():
        done = dict(db.execute("SELECT hour, rounds FROM rolled_hours WHERE agent_no=?", (agent_no,)).fetchall())
        rows = db.execute(
            "SELECT hour, revision, sum(n) FROM ("
            " SELECT started_ms / :hour AS hour, revision, 1 AS n FROM rounds WHERE agent_no=:agent AND started_ms<:end"
            " UNION ALL"
            " SELECT first_ms / :hour, revision, rounds FROM chunks WHERE agent_no=:agent AND first_ms<:end"
            ") GROUP BY hour, revision ORDER BY hour",
            {"hour": HOUR_MS, "agent": agent_no, "end": before_ms},
        )
        for hour, parts in groupby(rows.fetchall(), key=lambda row: int(row[0])):
            revisions = [(revision, count) for _, revision, count in parts]
            rounds = sum(count for _, count in revisions)
            if rounds > done.get(hour, 0):
                found.append(DueHour(agent_no, hour, rounds, tuple(revision for revision, _ in revisions)))
    return sorted(found, key=lambda d: d.hour)


def work_out(which: DueHour, rounds: Iterable[Round], sets: Sets) -> RolledHour:
    """All minutes of an hour and the hour itself; rounds whose set is not known any more are left out."""
    orders = {revision: sorted(range(len(ids)), key=ids.__getitem__) for revision, ids in sets.items()}
    ordered = {revision: [ids[i] for i in orders[revision]] for revision, ids in sets.items()}
    in_order = {revision: order == list(range(len(order))) for revision, order in orders.items()}
    minutes: dict[int, dict[int, list[array[int]]]] = {}
    for started_ms, revision, disturbed, samples in rounds:
        if len(orders.get(revision, ())) != len(samples):
            continue
        minute = (started_ms - which.hour * HOUR_MS) // MINUTE_MS
        kept = excuse(samples) if disturbed else samples
        if not in_order[revision]:
            kept = array("i", map(kept.__getitem__, orders[revision]))
        minutes.setdefault(minute, {}).setdefault(revision, []).append(kept)
    shelves = sorted({target // SHELF for ids in sets.values() for target in ids})
    packed: list[Packed] = []
    for at in range(0, len(shelves), SHELVES_AT_ONCE):
        some = shelves[at : at + SHELVES_AT_ONCE]
        packed += _packed(_worked_out(minutes, ordered, some[0] * SHELF, (some[-1] + 1) * SHELF))
    return RolledHour(which, packed)


def _worked_out(minutes: Mapping[int, Mapping[int, list[array[int]]]], sets: Sets, low: int, high: int) -> Worked:
    worked: Worked = {}
    for minute, by_revision in minutes.items():
        columns: dict[int, tuple[int, ...]] = {}
        for revision, rows in by_revision.items():
            ids = sets[revision]
            # Columns stand in the order of ids by now, so the targets of some shelves lie side by side.
            first, last = bisect_left(ids, low), bisect_left(ids, high)
            cut = zip(*[row[first:last] for row in rows], strict=True)
            for target, column in zip(ids[first:last], cut, strict=True):
                columns[target] = columns[target] + column if target in columns else column
        for target, column in columns.items():
            worked.setdefault(target, {})[minute] = cell(column)
    return worked


def _packed(worked: Worked) -> list[Packed]:
    shelves: dict[int, list[int]] = {}
    for target in sorted(worked):
        shelves.setdefault(target // SHELF, []).append(target)
    return [
        (
            shelf,
            encode({t: {minute: c for minute, (c, _) in worked[t].items()} for t in targets}, MINUTES),
            encode({t: {0: hour_of(list(worked[t].values()))} for t in targets}, 1),
        )
        for shelf, targets in shelves.items()
    ]


def save(db: sqlite3.Connection, rolled: RolledHour) -> None:
    """Put an hour in the place of what was there of it, inside the caller's transaction."""
    agent_no, hour = rolled.due.agent_no, rolled.due.hour
    for table, which in (("minute_rollups", 1), ("hour_rollups", 2)):
        db.executemany(
            f"INSERT OR REPLACE INTO {table} (agent_no, shelf, hour, data) VALUES (?,?,?,?)",  # noqa: S608 - our own names
            [(agent_no, packed[0], hour, packed[which]) for packed in rolled.packed],
        )
    db.execute("INSERT OR REPLACE INTO rolled_hours VALUES (?,?,?)", (agent_no, hour, rolled.due.rounds))


def read(
    db: sqlite3.Connection, minutes: bool, agent_no: int, target_id: int, from_ms: int, to_ms: int
) -> list[Rollup]:
    """Minutes or hours of one pair that begin in [from, to), oldest first."""
    table, slots, step = ("minute_rollups", MINUTES, MINUTE_MS) if minutes else ("hour_rollups", 1, HOUR_MS)
    rows = db.execute(
        f"SELECT hour, data FROM {table} WHERE agent_no=? AND shelf=? AND hour>=? AND hour<=? ORDER BY hour",  # noqa: S608
        (agent_no, target_id // SHELF, from_ms // HOUR_MS, to_ms // HOUR_MS),
    )
    found = [
        rollup(hour * HOUR_MS + slot * step, c)
        for hour, data in rows
        for slot, c in decode(data, target_id, slots).items()
    ]
    return [r for r in found if from_ms <= r.start_ms < to_ms]


def drop(db: sqlite3.Connection, minutes_ms: int, hours_ms: int) -> int:
    """Forget up to DROP_ROWS each of minutes and hours before these moments; returns how many rows there were."""
    count = 0
    for table, moment in (("minute_rollups", minutes_ms), ("hour_rollups", hours_ms), ("rolled_hours", hours_ms)):
        gone = db.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE hour < ? LIMIT ?)",  # noqa: S608
            (moment // HOUR_MS, DROP_ROWS),
        )
        count += gone.rowcount
    return count
