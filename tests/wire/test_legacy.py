"""The original form of monitoring data: what is taken, and what is refused whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon_agent.wire.contract import ErrorCode, Outcome, WireError
from pingmon_agent.wire.legacy import decode_legacy

GOOD = {"target": "192.0.2.1", "rtt_ms": 12.345, "timestamp": 1_767_225_600.25}


def test_one_sample_or_a_list() -> None:
    """Milliseconds become microseconds, seconds become milliseconds, null is a loss."""
    [one] = decode_legacy(GOOD)
    many = decode_legacy([GOOD, {**GOOD, "rtt_ms": None}])

    assert (one.target, one.at_ms, one.sample) == ("192.0.2.1", 1_767_225_600_250, 12_345)
    assert [sample.sample for sample in many] == [12_345, Outcome.TIMEOUT]


@given(st.integers(0, 60_000_000))
def test_three_decimals_survive(us: int) -> None:
    """A value reported in ms with three decimals is shown again exactly."""
    [sample] = decode_legacy({**GOOD, "rtt_ms": us / 1000})

    assert sample.sample / 1000 == us / 1000


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({**GOOD, "target": 5}, ErrorCode.MALFORMED),
        ({**GOOD, "rtt_ms": -0.001}, ErrorCode.MALFORMED),
        ({**GOOD, "rtt_ms": 60_001}, ErrorCode.MALFORMED),
        ({**GOOD, "rtt_ms": "1"}, ErrorCode.MALFORMED),
        ({**GOOD, "rtt_ms": True}, ErrorCode.MALFORMED),
        ({**GOOD, "rtt_ms": float("nan")}, ErrorCode.MALFORMED),
        ({**GOOD, "timestamp": None}, ErrorCode.TIME),
        ({**GOOD, "timestamp": 0}, ErrorCode.TIME),
        ({**GOOD, "timestamp": float("inf")}, ErrorCode.TIME),
        ({**GOOD, "timestamp": 1e300}, ErrorCode.TIME),
        ({**GOOD, "timestamp": 10**400}, ErrorCode.TIME),
        ({**GOOD, "rtt_ms": -(10**400)}, ErrorCode.MALFORMED),
        ([], ErrorCode.BATCH),
        ([GOOD] * 12_001, ErrorCode.BATCH),
        ([GOOD, None], ErrorCode.MALFORMED),
        (None, ErrorCode.MALFORMED),
        ("x", ErrorCode.MALFORMED),
    ],
)
def test_a_message_is_taken_whole_or_not_at_all(bad: Any, code: ErrorCode) -> None:
    """One wrong sample refuses the message, with the code that says why."""
    with pytest.raises(WireError) as caught:
        decode_legacy(bad)

    assert caught.value.code is code
