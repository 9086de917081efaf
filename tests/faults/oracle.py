"""The oracle: what agents say they created, had acknowledged and gave up, against what the server's database holds.

Each agent writes a side log of its own; the check reads those files and raw SQL, and what is compacted by pingmon's
reader. A round is (agent, epoch, seq); all counts are samples. Loss is allowed only where the fault names it.
Must not know: how a fault is injected, how the agents work.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path

from pingmon.store.reads import Reads

Key = tuple[str, str, int]  # agent, epoch, seq
MayMiss = Callable[[Key, int], bool]
FLAG_CLOCK = 2  # the server says of a row: the agent's clock was so far off that mine stands here
SAMPLE_BYTES = 4


class SideLog:
    """What one agent did, one event a line. Flushed per line: it survives the end of the process that writes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def about_to(self, at_ms: int, values: bytes) -> None:
        """A round is measured; which number it gets is told by `created`, unless the agent dies in between."""
        self._file.write(f"about {at_ms} {values.hex()}\n")

    def created(self, epoch: str, seq: int, at_ms: int, values: bytes) -> None:
        """A round was measured; `values`: int32 little-endian."""
        self._file.write(f"created {epoch} {seq} {at_ms} {values.hex()}\n")

    def acked(self, epoch: str, upto: int) -> None:
        """The server said that it has everything up to here."""
        self._file.write(f"acked {epoch} {upto}\n")

    def gave_up(self, epoch: str, first: int, last: int, reason: str) -> None:
        """The agent told the server that these rounds will never come."""
        self._file.write(f"gave_up {epoch} {first} {last} {reason}\n")

    def close(self) -> None:
        """No more events."""
        self._file.close()


@dataclass
class Said:
    """The side logs of a fleet, read."""

    created: dict[Key, tuple[int, bytes]] = field(default_factory=dict)
    acked: dict[tuple[str, str], int] = field(default_factory=dict)
    gave_up: dict[Key, str] = field(default_factory=dict)
    unnumbered: set[tuple[str, int, bytes]] = field(default_factory=set)  # agent, time, values


def read_logs(folder: Path) -> Said:
    """All `*.side` files of a folder; the name of a file is the agent."""
    said = Said()
    for path in sorted(folder.glob("*.side")):
        for line in path.read_text().splitlines():
            what, epoch, *rest = line.split()
            if what == "about":
                said.unnumbered.add((path.stem, int(epoch), bytes.fromhex(rest[0])))
            elif what == "created":
                said.created[path.stem, epoch, int(rest[0])] = int(rest[1]), bytes.fromhex(rest[2])
                said.unnumbered.discard((path.stem, int(rest[1]), bytes.fromhex(rest[2])))
            elif what == "acked":
                said.acked[path.stem, epoch] = max(int(rest[0]), said.acked.get((path.stem, epoch), 0))
            else:
                gone = range(int(rest[0]), int(rest[1]) + 1)
                said.gave_up |= {(path.stem, epoch, seq): rest[2] for seq in gone}
    return said


@dataclass(frozen=True)
class Row:
    """One row of the server's samples."""

    key: Key
    at_ms: int
    flags: int
    samples: bytes


_RAW = (
    "SELECT e.agent_no, e.epoch, r.seq, r.started_ms, r.flags, r.samples"
    " FROM rounds r JOIN epochs e ON e.no = r.epoch_no"
)


def _compacted(database: Path, names: dict[int, str], raw: list[Row]) -> list[Row]:
    """What the product's own reader finds beside the raw rows: what chunks hold is told by nothing else."""
    reads = Reads(database)
    try:
        every = [
            Row((names[r.agent_no], r.epoch, r.seq), r.started_ms, r.flags, r.samples.tobytes()) for r in reads.since(0)
        ]
    finally:
        reads.close()
    left = Counter(raw)
    beside = []
    for row in every:
        if left[row] > 0:
            left[row] -= 1
        else:
            beside.append(row)
    return beside


class Stored:
    """A copy of the server's two databases, so that looking at them changes nothing of what the next start finds."""

    def __init__(self, data: Path, content: bool = True) -> None:
        """Without `content` no rounds are read: soundness and cursors only, which costs little."""
        with tempfile.TemporaryDirectory(prefix="pingmon-oracle-") as folder:
            for path in (*data.glob("samples.db*"), *data.glob("pingmon.db*")):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, folder)
            self.compacted = 0
            self._read(Path(folder), content)

    def _read(self, folder: Path, content: bool) -> None:
        with closing(sqlite3.connect(folder / "pingmon.db")) as directory:
            names: dict[int, str] = dict(directory.execute("SELECT no, hostname FROM agents"))
        with closing(sqlite3.connect(folder / "samples.db")) as db:
            complaint = db.execute("PRAGMA integrity_check").fetchone()[0]
            self.complaint = "" if complaint == "ok" else str(complaint)
            epochs = db.execute("SELECT agent_no, epoch, upto FROM epochs").fetchall()
            found = db.execute(_RAW).fetchall() if content else []
        self.cursors = {(names[no], epoch): upto for no, epoch, upto in epochs}
        self.rows = [Row((names[no], epoch, seq), at, flags, data) for no, epoch, seq, at, flags, data in found]
        if content:
            compacted = _compacted(folder / "samples.db", names, self.rows)
            self.compacted = len(compacted)
            self.rows += compacted

    def highest(self) -> dict[tuple[str, str], int]:
        """(agent, epoch) -> the highest seq that is stored."""
        found: dict[tuple[str, str], int] = {}
        for row in self.rows:
            agent, epoch, seq = row.key
            found[agent, epoch] = max(seq, found.get((agent, epoch), 0))
        return found


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Samples by what became of them. `allowed`: missing, as the fault says, `damaged` of them as it damaged them.
    `restamped`: under the server's time."""

    created: int
    stored: int
    expired: int
    rejected: int
    lost: int
    dup: int
    altered: int
    allowed: int
    restamped: int
    damaged: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every sample that was ever created is accounted for."""
        return self.created == self.stored + self.expired + self.rejected + self.damaged

    @property
    def good(self) -> bool:
        """Nothing lost beyond what the fault allows, nothing twice, nothing changed, all accounted for."""
        return self.balanced and not (self.lost or self.dup or self.altered)

    def sentence(self) -> str:
        """The account in words."""
        sign = "=" if self.balanced else "IS NOT"
        damaged = f" + damaged {self.damaged}" if self.damaged else ""
        return (
            f"created {self.created} {sign} stored {self.stored} + expired {self.expired} + rejected {self.rejected}"
            + damaged
        )

    @staticmethod
    def nothing() -> Verdict:
        """The account of no samples."""
        return Verdict(
            created=0, stored=0, expired=0, rejected=0, lost=0, dup=0, altered=0, allowed=0, restamped=0
        )  # fmt: skip

    def __add__(self, other: Verdict) -> Verdict:
        """Both accounts in one."""
        words = [word.name for word in fields(self)]
        return Verdict(**{word: getattr(self, word) + getattr(other, word) for word in words})


def nothing_allowed(_key: Key, _at_ms: int) -> bool:
    """No round may be missing."""
    return False


def judge(
    folder: Path,
    data: Path,
    may_miss: MayMiss = nothing_allowed,
    restamped: Set[str] = frozenset(),
    damaged: Set[Key] = frozenset(),
) -> Verdict:
    """Hold the side logs in `folder` against the databases in `data`. `may_miss(key, at_ms)`: the fault allows it.

    Rows of `restamped` may carry the server's time if they are marked so. `damaged`: the fault spoilt these rounds at
    their agents, which may or may not know of it.
    """
    said, rows = read_logs(folder), Stored(data).rows
    # What an agent had put into its ring when it died, before it could say so, counts as created where it arrived.
    said.created |= {
        row.key: (row.at_ms, row.samples) for row in rows if (row.key[0], row.at_ms, row.samples) in said.unnumbered
    }
    distinct = {row.key: row for row in rows}
    missing = said.created.keys() - distinct.keys()
    spoilt = missing & damaged
    excused = (missing & said.gave_up.keys()) - spoilt
    expired = {key for key in excused if said.gave_up[key] == "expired"}
    allowed = {key for key in expired if may_miss(key, said.created[key][0])}
    wrong = [row for row in rows if row.key not in said.created or _differs(said, row, restamped)]
    moved = [row for row in rows if row.key in said.created and row.at_ms != said.created[row.key][0]]
    return Verdict(
        created=_told(said, said.created),
        stored=_kept(distinct.values()),
        expired=_told(said, expired),
        rejected=_told(said, excused - expired),
        lost=_told(said, missing - allowed - spoilt),
        dup=_kept(rows) - _kept(distinct.values()),
        altered=_kept(wrong),
        allowed=_told(said, allowed | spoilt),
        restamped=_kept(moved) if restamped else 0,
        damaged=_told(said, spoilt),
    )


def _told(said: Said, keys: Iterable[Key]) -> int:
    return sum(len(said.created[key][1]) // SAMPLE_BYTES for key in keys)


def _kept(rows: Iterable[Row]) -> int:
    return sum(len(row.samples) // SAMPLE_BYTES for row in rows)


def _differs(said: Said, row: Row, restamped: Set[str]) -> bool:
    at_ms, values = said.created[row.key]
    overruled = bool(row.flags & FLAG_CLOCK) and row.key[0] in restamped
    return row.samples != values or (row.at_ms != at_ms and not overruled)


def acked_too_early(folder: Path, data: Path) -> int:
    """Rounds that the server acknowledged though its database does not reach that far."""
    acked = read_logs(folder).acked  # first: what a server that lives commits meanwhile only adds to the other side
    cursors = Stored(data, content=False).cursors
    return sum(max(0, upto - cursors.get(run, 0)) for run, upto in acked.items())
