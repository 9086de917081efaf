"""Monitoring data as the original contract has it: `{target, rtt_ms, timestamp}` or a list of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .contract import MAX_RTT_US, MAX_SAMPLES_PER_REPORT, ErrorCode, Outcome, WireError

_FAR = 2**53  # nothing in a message is larger


@dataclass(frozen=True, kw_only=True)
class LegacySample:
    """`target` as the client spelled it, `at_ms` unix ms, `sample` RTT in us or `Outcome.TIMEOUT`."""

    target: str
    at_ms: int
    sample: int


def decode_legacy(data: object) -> list[LegacySample]:
    """All samples of one message; raises WireError and takes none where one of them is wrong."""
    rows = data if isinstance(data, list) else [data]
    if not 1 <= len(rows) <= MAX_SAMPLES_PER_REPORT:
        raise WireError(ErrorCode.BATCH, f"a message holds 1 to {MAX_SAMPLES_PER_REPORT} samples")
    return [_sample(row) for row in rows]


def _sample(row: object) -> LegacySample:
    if not isinstance(row, Mapping) or not isinstance(row.get("target"), str):
        raise WireError(ErrorCode.MALFORMED, "each sample must be {target, rtt_ms, timestamp}, target a string")
    at_s, rtt_ms = _number(row.get("timestamp")), row.get("rtt_ms")
    if at_s is None or not 0 < at_s < 2**40:
        raise WireError(ErrorCode.TIME, "timestamp must be unix time in seconds")
    if rtt_ms is None:
        return LegacySample(target=row["target"], at_ms=round(at_s * 1000), sample=Outcome.TIMEOUT)
    rtt = _number(rtt_ms)
    if rtt is None or not 0 <= rtt * 1000 <= MAX_RTT_US:
        raise WireError(ErrorCode.MALFORMED, f"rtt_ms must be null or between 0 and {MAX_RTT_US // 1000}")
    return LegacySample(target=row["target"], at_ms=round(at_s * 1000), sample=round(rtt * 1000))


def _number(value: object) -> float | None:
    # Compared, not converted: a whole number of any length is allowed in JSON, and no float holds it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _FAR:
        return None
    return float(value)
