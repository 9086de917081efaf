"""The last hour of every pair, in memory and in columns: what pages and the grid read instead of the database.

Per agent a few blocks, one for each target set it had; a block is one flat int32 array, round after round, so a pair is
a slice with a stride. Must not know: the database, sockets, what a value means.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pingmon.store.rounds import FLAG_LATE, StoredRound

KEEP_MS = 3_600_000
# Rows are dropped in pieces: moving the array for every round would cost more than the few extra rows.
SLACK_MS = 300_000


@dataclass
class Block:
    """Rounds of one target set. `times` = started_ms per round, `flat` = `width` samples per round."""

    revision: int
    width: int
    columns: dict[int, list[int]]
    times: array[int] = field(default_factory=lambda: array("q"))
    flags: bytearray = field(default_factory=bytearray)
    flat: array[int] = field(default_factory=lambda: array("i"))

    @classmethod
    def of(cls, revision: int, target_ids: Sequence[int]) -> Block:
        """An empty block; a target that is probed several times a round has several columns."""
        columns: dict[int, list[int]] = {}
        for i, target_id in enumerate(target_ids):
            columns.setdefault(target_id, []).append(i)
        return cls(revision, len(target_ids), columns)


class Recent:
    """Appended to after each commit; read by everybody on the hub."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[Block]] = {}
        self._newest: dict[int, int] = {}
        self.complete = False  # once the hour before the start has been read in, too

    def add(self, stored: StoredRound, target_ids: tuple[int, ...]) -> None:
        """Take in one committed round of set `target_ids`."""
        blocks = self._blocks.setdefault(stored.agent_no, [])
        block = next((b for b in reversed(blocks) if b.revision == stored.revision), None)
        if block is None:
            block = Block.of(stored.revision, target_ids)
            blocks.append(block)
        block.times.append(stored.started_ms)
        block.flags.append(stored.flags)
        block.flat.extend(stored.samples)
        if stored.flags & FLAG_LATE:
            return
        self._newest[stored.agent_no] = max(stored.started_ms, self._newest.get(stored.agent_no, 0))

    def newest_ms(self, agent_no: int) -> int:
        """When the newest round of this agent started that came in time; 0 if there is none."""
        return self._newest.get(agent_no, 0)

    def pair(self, agent_no: int, target_id: int, since_ms: int) -> list[tuple[int, int, int]]:
        """[(started_ms, sample, flags)] of one pair since then, oldest first; late rounds stand where they belong."""
        found: list[tuple[int, int, int]] = []
        for block in self._blocks.get(agent_no, ()):
            for column in block.columns.get(target_id, ()):
                values = block.flat[column :: block.width]
                found.extend(zip(block.times, values, block.flags, strict=True))
        # By time alone: the samples of one round stay in the order they were sent in.
        return sorted((row for row in found if row[0] >= since_ms), key=lambda row: row[0])

    def trim(self, now_ms: int) -> None:
        """Forget what is older than an hour."""
        for agent_no, blocks in list(self._blocks.items()):
            for block in blocks:
                _trim_block(block, now_ms - KEEP_MS)
            kept = [block for block in blocks if block.times]
            if kept:
                self._blocks[agent_no] = kept
            else:
                del self._blocks[agent_no]

    def forget(self, agents: Iterable[int]) -> None:
        """Drop deleted agents."""
        for agent_no in agents:
            self._blocks.pop(agent_no, None)
            self._newest.pop(agent_no, None)

    def agents(self) -> set[int]:
        """Agents that have rounds here."""
        return set(self._blocks)

    @property
    def samples(self) -> int:
        """Samples held, for metrics."""
        return sum(len(block.flat) for blocks in self._blocks.values() for block in blocks)


def _trim_block(block: Block, oldest_ms: int) -> None:
    if not block.times or block.times[0] >= oldest_ms - SLACK_MS:
        return
    # Rows come nearly in time order; a late one behind the cut leaves with a later cut.
    cut = next((i for i, t in enumerate(block.times) if t >= oldest_ms), len(block.times))
    del block.times[:cut]
    del block.flags[:cut]
    del block.flat[: cut * block.width]
