"""The last rounds of an agent before an instant, for a picture of that moment: few rounds, all targets.

A hundred agents of a thousand targets are a million samples, and nearly all of them say "answered". So only the newest
round is unpacked as a whole, and of the others no more than the targets that missed something. Raw sqlite3 inside the
caller's read transaction. Must not know: what a sample means, beyond that outcomes are below 0.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from .compaction import Kept, chunks_of
from .lifting import negative
from .packing import unpack


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundHead:
    """A round but for its samples."""

    agent_no: int
    epoch: str
    seq: int
    started_ms: int
    revision: int
    flags: int
    received_ms: int


class Window(NamedTuple):
    """Consecutive rounds of one target set, oldest first. `newest`: the samples of the last one; `odd`: column -> its
    samples in all of these rounds, for each column that has an outcome instead of a reply in any of them."""

    heads: list[RoundHead]
    newest: array[int]
    odd: dict[int, list[int]]


_Key = tuple[int, int, int]  # started_ms, epoch_no, seq: the order of rounds


class _Part(NamedTuple):
    """Rounds that lie together. `rest`: flags and received_ms of each; `column(i)`: all samples of a column."""

    keys: list[_Key]
    rest: list[tuple[int, int]]
    revision: int
    newest: array[int]
    odd: dict[int, list[int]]
    column: Callable[[int], Sequence[int]]


def read(db: sqlite3.Connection, agent_no: int, from_ms: int, to_ms: int) -> Window | None:
    """The agent's rounds with `from_ms` <= started_ms < `to_ms`. None where there are none, and where they do not lie
    one after the other under one target set: then they must be read one by one."""
    parts: list[_Part] = []
    for kept in chunks_of(db, agent_no, from_ms, to_ms):
        started = kept.chunk.numbers(0)
        first, last = bisect_left(started, from_ms), bisect_left(started, to_ms)
        if first == last:
            continue
        part = _of_chunk(kept, started, first, last)
        if part is None:
            return None
        parts.append(part)
    parts += _raw(db, agent_no, from_ms, to_ms)
    parts.sort(key=lambda part: part.keys[0])
    if not parts or not _consecutive(parts):
        return None
    epochs = dict(db.execute("SELECT no, epoch FROM epochs WHERE agent_no=?", (agent_no,)).fetchall())
    odd = sorted(set().union(*(part.odd for part in parts)))
    return Window(
        [head for part in parts for head in _heads(agent_no, epochs, part)],
        parts[-1].newest,
        {i: [us for part in parts for us in part.odd.get(i) or part.column(i)] for i in odd},
    )


def _consecutive(parts: Sequence[_Part]) -> bool:
    one_set = all((part.revision, len(part.newest)) == (parts[0].revision, len(parts[0].newest)) for part in parts)
    return one_set and all(one.keys[-1] < other.keys[0] for one, other in pairwise(parts))


def _of_chunk(kept: Kept, started: Sequence[int], first: int, last: int) -> _Part | None:
    chunk = kept.chunk
    found = chunk.newest_and_odd(first, last)
    kept.close()
    if found is None:
        return None
    epochs, seqs, flags, received = (chunk.numbers(which)[first:last] for which in range(1, 5))
    keys, rest = zip(started[first:last], epochs, seqs, strict=True), zip(flags, received, strict=True)

    def column(position: int) -> list[int]:
        try:
            return chunk.column(position, first, last)
        finally:
            kept.close()

    return _Part(list(keys), list(rest), kept.revision, *found, column)


def _raw(db: sqlite3.Connection, agent_no: int, from_ms: int, to_ms: int) -> list[_Part]:
    """Rounds that are not in a chunk yet, cut where the target set changes."""
    rows = db.execute(
        "SELECT started_ms, epoch_no, seq, flags, received_ms, revision, samples FROM rounds"
        " WHERE agent_no=? AND started_ms>=? AND started_ms<? ORDER BY started_ms, epoch_no, seq",
        (agent_no, from_ms, to_ms),
    ).fetchall()
    return [_of_rows(list(run)) for _, run in groupby(rows, key=lambda row: (row[5], len(row[6])))]


def _of_rows(rows: list[tuple[int, int, int, int, int, int, bytes]]) -> _Part:
    blobs = [row[6] for row in rows]
    columns = {i for blob in blobs for i in negative(blob)}

    def column(position: int) -> Sequence[int]:
        return unpack(b"".join([blob[4 * position : 4 * position + 4] for blob in blobs]))

    odd = {i: list(column(i)) for i in columns}
    return _Part([row[:3] for row in rows], [row[3:5] for row in rows], rows[0][5], unpack(blobs[-1]), odd, column)


def _heads(agent_no: int, epochs: dict[int, str], part: _Part) -> Iterator[RoundHead]:
    for (started_ms, epoch_no, seq), (flags, received_ms) in zip(part.keys, part.rest, strict=True):
        yield RoundHead(
            agent_no=agent_no,
            epoch=epochs[epoch_no],
            seq=seq,
            started_ms=started_ms,
            revision=part.revision,
            flags=flags,
            received_ms=received_ms,
        )
