"""`python -m tests.abuse.fuzz MINUTES [SEED]`: changed bytes to every judge, for as long as it is told to.

An input with a new outcome is kept and changed on, so it works itself deeper. What a judge did not expect is written to
cases/, where a normal test plays it back for ever. Exit code 1 if there was any.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .judges import JUDGES, Judge, examples

CASES = Path(__file__).parent / "cases"
MOST_KEPT, MOST_BYTES, TOO_LONG_S = 4_000, 70_000, 1.0
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53, 2**63, -(2**64), 10**400, "", "0", "x" * 2_000, "\x00",
    "\ud800", "\u202e", "null", [], {}, [[]], [None] * 70, {"": {}}, [[1, "x"]], "0" * 16, "pmseal1:..", "pmkey1:", "=",
)  # fmt: skip
WORDS = (
    b"[" * 4_000, b'{"a":' * 1_500, b"9" * 5_000, b"NaN", b"Infinity", b"1e999", b"-", b"\\u0000", b"\\ud800", b"\xff",
    b"\xc2\xb2", b'"', b",", b"/agent,", b"/", b"?", b"51-", b"59999999999-", b"2", b"4", b"=", b"==",
    b'{"a":1,"a":1}', b"_placeholder", b".", b":", b"\x1e", b"\r\n", b"handshake", b"monitoring_data", b"connect",
    b"rtt32", b"true", b"null",
)  # fmt: skip


@dataclass
class Fuzz:
    """One run; the same seed and the same code find the same."""

    seed: int
    judges: Mapping[str, Judge] = field(default_factory=lambda: JUDGES)
    cases: Path = CASES
    inputs: int = 0
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._kept = [(name, data) for name, data in examples() if name in self.judges]
        self._seen: set[tuple[str, str]] = set()

    def run(self, seconds: float, most: int = sys.maxsize) -> None:
        """Until the time or `most` inputs are over."""
        end = time.monotonic() + seconds
        while self.inputs < most and time.monotonic() < end:
            name, data = self._chance.choice(self._kept)
            for _ in range(self._chance.choice((1, 1, 2, 4))):
                data = self._changed(name, data)
            self._try(name, data[:MOST_BYTES])

    @property
    def outcomes(self) -> int:
        """How many different ones there were."""
        return len(self._seen)

    def _try(self, name: str, data: bytes) -> None:
        self.inputs += 1
        began = time.process_time()
        try:
            outcome = str(self.judges[name](data))
        except Exception as error:  # noqa: BLE001 - finding these is what this is for
            self._keep_case(name, data, f"{type(error).__name__}: {error}")
            return
        if time.process_time() - began > TOO_LONG_S:
            self._keep_case(name, data, "it took too long")
        mark = (name, re.sub(r"'[^']*'|\d+", "#", outcome)[:40])
        if mark not in self._seen and len(self._kept) < MOST_KEPT:
            self._seen.add(mark)
            self._kept.append((name, data))

    def _keep_case(self, name: str, data: bytes, why: str) -> None:
        mark = (name, re.sub(r"\d+", "#", why)[:80])
        if mark in self._seen:
            return
        self._seen.add(mark)
        path = self.cases / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.case"
        path.write_bytes(data)
        self.faults.append(f"{path.name}: {why[:200]}")

    def _changed(self, name: str, data: bytes) -> bytes:
        if self._chance.random() < 0.5:
            structured = self._restructured(data, 0 if name != "message" else max(0, _body(data)))
            if structured is not None:
                return structured
        return self._spoiled(data)

    def _spoiled(self, data: bytes) -> bytes:
        chance = self._chance
        at, other = chance.randrange(len(data) + 1), chance.choice(self._kept)[1]
        end = min(len(data), at + chance.choice((1, 1, 2, 8, 64)))
        return data[:at] + chance.choice((
            data[end:], chance.choice(WORDS) + data[at:], bytes([chance.randrange(256)]) + data[end:],
            data[at:end] * 2 + data[end:], other[chance.randrange(len(other) + 1) :], chance.choice(WORDS) + data[end:],
        ))  # fmt: skip

    def _restructured(self, data: bytes, start: int) -> bytes | None:
        try:
            value = json.loads(data[start:])
            place = self._chance.choice(_places(value))
        except (ValueError, RecursionError, IndexError):
            return None
        holder, key = place
        if self._chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = self._chance.choice((*ODD, value, holder[key], [holder[key]] * 2))
        try:
            return data[:start] + json.dumps(value).encode()
        except (ValueError, RecursionError):
            return None  # it holds itself


def _body(data: bytes) -> int:
    """Where the JSON of a message begins."""
    return min((at for at in (data.find(b"["), data.find(b"{")) if at >= 0), default=0)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in a value, the first of long lists only."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 8)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def main(words: list[str]) -> int:
    """See the module."""
    minutes = float(words[0]) if words else 10.0
    fuzz = Fuzz(int(words[1]) if len(words) > 1 else time.time_ns() % 2**32)
    print(f"fuzzing for {minutes:g} min, seed {fuzz.seed}", flush=True)
    logging.disable()  # the agent says of each nonsense that it was one
    fuzz.run(minutes * 60)
    for fault in fuzz.faults:
        print(f"FOUND {fault}")
    print(f"RESULT fuzz inputs={fuzz.inputs} outcomes={fuzz.outcomes} found={len(fuzz.faults)} seed={fuzz.seed}")
    return 1 if fuzz.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
