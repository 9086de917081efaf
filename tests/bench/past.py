"""A day that never was, for `bench-history`: one agent's rounds written and compacted as ever, then given to others.

Each chunk of the others is the first agent's with heads of its own (epochs differ), so the files hold what they would
hold, in a hundredth of the time. Must not know: how it is read.
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from pingmon.store import chunks
from pingmon.store.packing import checksum, pack
from pingmon.store.rounds import SqliteRounds, StoredRound

from .feed import INTERVAL_MS, Feed

_EPOCH = "00000000000000b5"
_KINDS = 64  # rounds that are made; the day is made of them, shifted a little each time
ROUNDS = 24 * 720


def write_day(file: Path, agents: dict[int, int], targets: int, now_ms: int) -> float:
    """A day up to `now_ms` for `agents` ({agent number: its set's revision}); returns the seconds it took."""
    began = time.monotonic()
    first, *others = agents.items()
    store = SqliteRounds(file)
    try:
        _write_one(store, first, targets, now_ms)
        for number, revision in others:
            store.write([], {(number, _EPOCH): ROUNDS}, now_ms)
            with closing(sqlite3.connect(file, isolation_level=None)) as db:
                _copy(db, first[0], number, revision)
    finally:
        store.close()
    return time.monotonic() - began


def day(targets: int, now_ms: int) -> Iterator[tuple[int, array[int]]]:
    """When each round of the day up to `now_ms` started (unix ms), and its samples; oldest first."""
    feed = Feed(1, targets, _KINDS, now_ms)
    kinds = [feed.column(0, kind) for kind in range(_KINDS)]
    for number in range(ROUNDS):
        kind = kinds[number % _KINDS]
        shifted = array("i", [us + (number * 7 + i) % 13 if us >= 0 else us for i, us in enumerate(kind)])
        yield now_ms - (ROUNDS - number) * INTERVAL_MS, shifted


def _write_one(store: SqliteRounds, agent: tuple[int, int], targets: int, now_ms: int) -> None:
    rounds = enumerate(day(targets, now_ms))
    while part := list(islice(rounds, 720)):
        store.write(
            [_round(number, agent, at_ms, samples) for number, (at_ms, samples) in part],
            {(agent[0], _EPOCH): part[-1][0] + 1}, now_ms,
        )  # fmt: skip
    for due in store.compactable((now_ms - 3_600_000) // 3_600_000 * 3_600_000):
        while store.compact(due):
            pass


def _round(number: int, agent: tuple[int, int], at_ms: int, samples: array[int]) -> StoredRound:
    return StoredRound(
        agent_no=agent[0], epoch=_EPOCH, seq=number + 1, started_ms=at_ms, revision=agent[1], flags=0,
        received_ms=at_ms + 300, samples=samples,
    )  # fmt: skip


def _copy(db: sqlite3.Connection, source: int, number: int, revision: int) -> None:
    (epoch_no,) = db.execute("SELECT no FROM epochs WHERE agent_no=?", (number,)).fetchone()
    names = "first_ms, last_ms, rounds, width, tile_columns, tile_rounds, heads, bases, ends, data, crc"
    rows = db.execute(f"SELECT {names} FROM chunks WHERE agent_no=? ORDER BY first_ms", (source,)).fetchall()
    db.execute("BEGIN")
    for row in rows:
        encoded = chunks.Encoded(*row)
        heads = _heads_of(encoded, epoch_no)
        frame = encoded.ends[:-4]
        vouched = chunks._frame_crc(encoded[2:6], heads, encoded.bases, frame)
        encoded = encoded._replace(ends=frame + pack(array("I", [vouched])))
        crc = checksum(heads, encoded.bases, encoded.ends, encoded.data)
        db.execute(
            f"INSERT INTO chunks (agent_no, revision, {names}) VALUES ({','.join('?' * 13)})",
            (number, revision, *encoded._replace(heads=heads, crc=crc)),
        )
    db.execute(
        "INSERT INTO rounds SELECT ?, started_ms, ?, seq, ?, flags, received_ms, samples FROM rounds WHERE agent_no=?",
        (number, epoch_no, revision, source),
    )
    db.execute("COMMIT")


def _heads_of(encoded: chunks.Encoded, epoch_no: int) -> bytes:
    chunk = chunks.Chunk(*encoded[2:9], lambda _start, _end: b"")
    started, _, seqs, flags, received = (chunk.numbers(which) for which in range(5))
    rows = zip(started, seqs, flags, received, strict=True)
    return chunks._pack_heads([chunks.Row(at, epoch_no, seq, flag, got, b"") for at, seq, flag, got in rows])
