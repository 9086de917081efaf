"""What agents refuse to ping, and why: the newest word of each, in memory and in the directory.

An acknowledged target set says what is refused of its addresses; later reports say it of its names. Agents are not
believed more than that: codes of the contract, few of them, saved seldom. Must not know: sockets, Flask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pingmon.store.directory import Directory, DirectoryError
from pingmon.store.models import TargetRefusals
from pingmon_agent.wire.contract import MAX_TARGETS
from pingmon_agent.wire.hosts import MAX_REFUSED, decode_refused, in_words

from .clock import Clock
from .views import TargetView

Pairs = tuple[tuple[int, str], ...]
Json = dict[str, Any]
SAVE_EVERY_S = 10.0  # an agent that changes its mind with each message must not keep the database busy
FEW = 5


@dataclass
class _Word:
    """Of one agent. `count` = how many addresses it refuses, of which it may have named only the first."""

    addresses: Pairs = ()
    names: Pairs = ()
    count: int = 0
    saved: tuple[object, ...] = ()
    saved_at: float = field(default=-SAVE_EVERY_S)

    @property
    def content(self) -> tuple[object, ...]:
        """What there is to save."""
        return self.addresses, self.names, self.count


class Refusals:
    """Told by the agent socket, read by pages, API and metrics; the command line reads what was saved."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory, self._clock = directory, clock
        with directory.reading() as tx:
            self._words = {row.agent_no: _load(row) for row in tx.refusals()}

    def acknowledged(self, agent_no: int, body: Mapping[str, Any]) -> None:
        """The answer to a target set that was taken; raises WireError where its refusals are nonsense."""
        pairs = decode_refused(body.get("refused", []), MAX_REFUSED)
        count = body.get("refused_count", len(pairs))
        usable = type(count) is int and len(pairs) <= count <= MAX_TARGETS
        word = self._words.setdefault(agent_no, _Word())
        word.addresses, word.names, word.count = pairs, (), count if usable else len(pairs)
        self._save(agent_no, word)

    def reported(self, agent_no: int, names: Pairs) -> None:
        """What a report says about the names of the set in force."""
        word = self._words.setdefault(agent_no, _Word())
        word.names = names
        self._save(agent_no, word)

    def _save(self, agent_no: int, word: _Word, at_once: bool = False) -> None:
        now = self._clock.monotonic()
        if word.content == word.saved or (now - word.saved_at < SAVE_EVERY_S and not at_once):
            return
        row = {"addresses": word.addresses, "names": word.names, "count": word.count}
        try:
            with self._directory.transaction() as tx:
                tx.save_refusals(agent_no, self._clock.wall_ms(), json.dumps(row, separators=(",", ":")))
        except DirectoryError:
            return  # health tells; `flush` tries again
        word.saved, word.saved_at = word.content, now

    def flush(self) -> None:
        """Save what was put off."""
        for agent_no, word in list(self._words.items()):
            self._save(agent_no, word, at_once=True)

    def count(self, agent_no: int) -> int:
        """How many targets this agent refuses."""
        word = self._words.get(agent_no, _Word())
        return word.count + len(word.names)

    def why(self, agent_no: int, target_id: int) -> Json | None:
        """Why this agent does not ping this target, or None."""
        word = self._words.get(agent_no, _Word())
        code = dict((*word.addresses, *word.names)).get(target_id)
        return None if code is None else {"code": code, "reason": in_words(code)}

    def shown(self, agent_no: int, targets: Mapping[int, TargetView], most: int | None = None) -> Json:
        """As JSON: how many, and the first `most` of those that are still targets, with their reasons in words."""
        word = self._words.get(agent_no, _Word())
        pairs = [(targets[i], code) for i, code in (*word.addresses, *word.names) if i in targets][:most]
        rows = [{"target_id": t.id, "target": t.name, "code": code, "reason": in_words(code)} for t, code in pairs]
        return {"refused_count": self.count(agent_no) if rows else 0, "refused": rows}


def _load(row: TargetRefusals) -> _Word:
    kept = json.loads(row.refused)
    addresses, names = (tuple((i, code) for i, code in kept[part]) for part in ("addresses", "names"))
    word = _Word(addresses, names, kept["count"])
    word.saved = word.content
    return word
