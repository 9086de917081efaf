"""One pair over time, from raw rounds and chunks alike; raw sqlite3 inside the caller's read transaction.

Must not know: what a sample means.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from .compaction import HOUR_MS, Kept, chunks_of
from .packing import unpack

Sample = tuple[int, int, int]  # started_ms, sample, flags
Key = tuple[int, int, int]  # started_ms, epoch_no, seq: the order of rounds


class _Run(NamedTuple):
    """Samples in order. `keys` tells the round of each; asked only where runs overlap, for it costs a little."""

    samples: list[Sample]
    keys: Callable[[], list[Key]]


def read(
    db: sqlite3.Connection, agent_no: int, columns: Mapping[int, Sequence[int]], from_ms: int, to_ms: int
) -> list[Sample]:
    """[(started_ms, sample, flags)]; several samples of one round stay in the order of their positions."""
    wanted = {revision: positions for revision, positions in columns.items() if positions}
    if not wanted:
        return []
    hours: dict[int, list[_Run]] = {}
    for kept in chunks_of(db, agent_no, from_ms, to_ms):
        if kept.revision in wanted:
            run = _from_chunk(kept, wanted[kept.revision], from_ms, to_ms)
            hours.setdefault(kept.first_ms // HOUR_MS, []).append(run)
        kept.close()
    for hour, run in _raw_by_hour(db, agent_no, wanted, from_ms, to_ms):
        hours.setdefault(hour, []).append(run)
    return list(chain.from_iterable(_merged(runs) for _, runs in sorted(hours.items())))


def _from_chunk(kept: Kept, positions: Sequence[int], from_ms: int, to_ms: int) -> _Run:
    chunk = kept.chunk
    started = chunk.numbers(0)
    first, last = bisect_left(started, from_ms), bisect_left(started, to_ms)
    started, flags = started[first:last], chunk.numbers(3)[first:last]
    # One list per position, then round by round.
    columns = [zip(started, chunk.column(p, first, last), flags, strict=True) for p in positions]

    def keys() -> list[Key]:
        rounds = zip(started, chunk.numbers(1)[first:last], chunk.numbers(2)[first:last], strict=True)
        return [key for key in rounds for _ in positions]

    return _Run(list(columns[0] if len(columns) == 1 else chain.from_iterable(zip(*columns, strict=True))), keys)


def _raw_by_hour(
    db: sqlite3.Connection, agent_no: int, columns: Mapping[int, Sequence[int]], from_ms: int, to_ms: int
) -> list[tuple[int, _Run]]:
    places = [(revision, nth, 4 * p + 1) for revision, at in columns.items() for nth, p in enumerate(at)]
    values = ",".join(["(?,?,?)"] * len(places))
    rows = db.execute(
        f"WITH places(revision, nth, first) AS (VALUES {values})"  # noqa: S608 - question marks only
        " SELECT started_ms, epoch_no, seq, flags, substr(samples, first, 4) FROM rounds CROSS JOIN places"
        " USING (revision) WHERE agent_no = ? AND started_ms >= ? AND started_ms < ?"
        " ORDER BY started_ms, epoch_no, seq, nth",
        (*chain.from_iterable(places), agent_no, from_ms, to_ms),
    ).fetchall()
    samples = unpack(b"".join([row[4] for row in rows]))
    found = []
    hours = sorted({row[0] // HOUR_MS for row in rows})
    for hour in hours:
        first = bisect_left(rows, hour * HOUR_MS, key=lambda row: int(row[0]))
        last = bisect_left(rows, (hour + 1) * HOUR_MS, key=lambda row: int(row[0]))
        part = rows[first:last]
        run = [(row[0], sample, row[3]) for row, sample in zip(part, samples[first:last], strict=True)]
        found.append((hour, _Run(run, lambda part=part: [row[:3] for row in part])))  # type: ignore[misc]
    return found


def _merged(runs: list[_Run]) -> list[Sample]:
    runs = sorted((run for run in runs if run.samples), key=lambda run: run.samples[0])
    if all(one.samples[-1][0] < other.samples[0][0] for one, other in pairwise(runs)):
        return [sample for run in runs for sample in run.samples]
    keyed = [item for run in runs for item in zip(run.keys(), run.samples, strict=True)]
    return [sample for _, sample in sorted(keyed, key=lambda item: item[0])]
