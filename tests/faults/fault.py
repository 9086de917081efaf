"""What a fault is and what comes out of it. Each `fault_NN.py` has a FAULT of this kind; `__main__` finds them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .oracle import Verdict
from .world import Run


@dataclass
class Findings:
    """Figures of a run, and the sentences that say why it did not pass."""

    verdict: Verdict | None = None
    figures: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def require(self, ok: bool, sentence: str) -> None:
        """A condition of passing beside the oracle's."""
        if not ok:
            self.problems.append(sentence)

    def close(self, verdict: Verdict, allowed: bool = False) -> Findings:
        """The oracle has spoken. `allowed`: this fault may lose what its row names."""
        self.verdict = verdict
        self.require(verdict.balanced, verdict.sentence())
        for word in ("lost", "dup", "altered", "rejected"):
            self.require(not getattr(verdict, word), f"{word} = {getattr(verdict, word)}")
        self.require(allowed or not verdict.expired, f"expired = {verdict.expired}, and this fault allows none")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """A fault by its number in the list. `guards`: what `--without` can take away, and what that shows."""

    number: int
    title: str
    inject: str
    passes: str
    run: Callable[[Run], Findings]
    guards: Mapping[str, str]
    short: str = ""  # where this falls short of what the list asks for
    root: bool = False
    waits: bool = False  # it mostly waits, and may do so beside another one
