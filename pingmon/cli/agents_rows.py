"""An agent as `pingmon agents list` and `wait` print it: what is decided about it, and when it was last heard of.

Must not know: what makes an agent good enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pingmon.services.bundle import Services
from pingmon.services.views import AgentView, seconds
from pingmon.store.check import SAMPLES
from pingmon.store.latest import Latest, LatestRounds

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def latest_rounds(services: Services) -> LatestRounds:
    """Where the newest rounds are read."""
    return LatestRounds(services.config.data_dir / SAMPLES)


def rows_of(services: Services, views: Iterable[AgentView]) -> list[dict[str, Any]]:
    """For every kind of output. Times are unix seconds, `last_round_age_s` seconds, None where none is kept."""
    views, now = list(views), services.clock.wall_ms()
    latest = latest_rounds(services).of([view.no for view in views])
    return [_row(view, latest[view.no], now) for view in views]


def _row(view: AgentView, latest: Latest, now_ms: int) -> dict[str, Any]:
    seen = datetime.fromtimestamp(view.last_seen_ms / 1000, UTC)
    # A round from the future belongs to a clock that nobody has measured yet.
    age_s = None if latest.shown_ms is None else max(0, now_ms - latest.shown_ms) / 1000
    return view.as_json() | {
        "seen": seen.strftime("%Y-%m-%d %H:%M:%SZ"),
        "last_round": seconds(latest.shown_ms),
        "last_round_age_s": age_s,
        "last_round_ago": ago(age_s),
        "clock_offset_s": seconds(latest.offset_ms),
    }


def ago(age_s: float | None) -> str | None:
    """A time that has passed, in one unit."""
    if age_s is None:
        return None
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if age_s >= 2 * unit_s:
            return f"{age_s // unit_s:.0f} {unit} ago"
    return f"{age_s:.0f} s ago"
