"""From when to when, and in what steps: what a person or a program may write, and the limits. Pure; knows no data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .errors import Invalid

MAX_POINTS: Final = 11_000  # as many as Prometheus gives
WANTED_POINTS: Final = 720
STEPS_S: Final = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)
UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
# Beyond these a number is no time in seconds, but one in milliseconds, or a slip.
_EARLIEST_S, _LATEST_S = 0, 32_503_680_000


@dataclass(frozen=True)
class Span:
    """[from_ms, to_ms) in unix milliseconds, cut into pieces of `step_ms`; 0: as measured, nothing put together."""

    from_ms: int
    to_ms: int
    step_ms: int

    def starts(self) -> range:
        """Where the pieces begin, aligned to whole steps, so that two requests cut alike."""
        first = self.from_ms - self.from_ms % self.step_ms
        return range(first, self.to_ms, self.step_ms)


def parse_span(since: str | None, until: str | None, step: str | None, now_ms: int, interval_s: float) -> Span:
    """A span from what the user wrote; missing: the last hour, in steps for about 720 points. Raises Invalid."""
    to_ms = instant("to", until, now_ms) if until else now_ms
    from_ms = instant("from", since, now_ms) if since else to_ms - 3_600_000
    if from_ms >= to_ms:
        raise Invalid("`from` must be before `to`; give an earlier `from`, such as from=-6h")
    step_ms = _step(step) if step else _fitting_step(to_ms - from_ms, interval_s)
    if step_ms and (to_ms - from_ms) / step_ms > MAX_POINTS:
        least = math.ceil((to_ms - from_ms) / MAX_POINTS / 1000)
        raise Invalid(f"that would be more than {MAX_POINTS:,} points; take a step of {least} s or more, or less time")
    return Span(from_ms, to_ms, step_ms)


def parse_instant(text: str, now_ms: int) -> int:
    """The parameter `at` in unix milliseconds, not in the future. Raises Invalid."""
    at_ms = instant("at", text, now_ms)
    if at_ms > now_ms:
        raise Invalid("`at` lies in the future; give a time that has been, such as at=-30m")
    return at_ms


def instant(name: str, text: str, now_ms: int) -> int:
    """What the user wrote as parameter `name`, in unix milliseconds. Raises Invalid."""
    text = text.strip()
    if text == "now":
        return now_ms
    if text.startswith("-") and (length := _duration_s(text[1:])) is not None:
        return now_ms - round(length * 1000)
    try:
        seconds = float(text)
    except ValueError:
        return _calendar(name, text)
    if not _EARLIEST_S <= seconds <= _LATEST_S:  # also false for nan
        raise Invalid(f"`{name}` is no time in seconds since 1970: {text!r}; milliseconds must be divided by 1000")
    return round(seconds * 1000)


def _calendar(name: str, text: str) -> int:
    try:
        # A plus in an address means a space, and the time zone is where people forget that.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise Invalid(
            f"`{name}` is no time: {text!r}; write seconds since 1970, 2026-11-25T12:00:00Z, now, or -6h for 6 h ago"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _duration_s(text: str) -> float | None:
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * UNITS_S[found[2]] if found else None


def _step(text: str) -> int:
    if text == "raw":
        return 0
    length = _duration_s(text)
    try:
        seconds = length if length is not None else float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 31 * 86_400:
        raise Invalid(f"`step` must be between 1 s and 31 d, not {text!r}; write 60, 1m, 1h, or raw for every sample")
    return round(seconds * 1000)


def _fitting_step(length_ms: int, interval_s: float) -> int:
    """The smallest handy step that is no shorter than a round and gives no more points than a chart has pixels."""
    least_s = max(interval_s, length_ms / 1000 / WANTED_POINTS)
    step_s = next((step for step in STEPS_S if step >= least_s), math.ceil(least_s / 86_400) * 86_400)
    return round(step_s * 1000)
