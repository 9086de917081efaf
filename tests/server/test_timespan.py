"""What people may write for a time, and what is refused with which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon.services.errors import Invalid
from pingmon.services.timespan import MAX_POINTS, STEPS_S, WANTED_POINTS, Kept, Span, parse_instant, parse_span

NOW = 1_800_000_000_000
HOUR = 3_600_000
ALL = Kept(0, 0)
DAY_AND_MONTH = Kept(NOW - 24 * HOUR, NOW - 720 * HOUR)


@pytest.mark.parametrize(
    ("since", "from_ms"),
    [
        (None, NOW - HOUR),
        ("1799990000", 1_799_990_000_000),
        ("1799990000.25", 1_799_990_000_250),
        ("-90s", NOW - 90_000),
        ("-6h", NOW - 6 * HOUR),
        ("-1.5d", NOW - 36 * HOUR),
        ("-2w", NOW - 336 * HOUR),
        ("2027-01-15T07:00:00Z", NOW - HOUR),
        ("2027-01-15T08:00:00+01:00", NOW - HOUR),
        ("2027-01-15T08:00:00 01:00", NOW - HOUR),
        ("2027-01-15 07:00", NOW - HOUR),
        ("2027-01-15", NOW - 8 * HOUR),
    ],
)
def test_a_time_may_be_written_in_many_ways(since: str | None, from_ms: int) -> None:
    """Seconds, a length back from now, the calendar; a time without a zone is UTC."""
    assert parse_span(since, None, None, NOW, 5, ALL).from_ms == from_ms


@pytest.mark.parametrize(
    ("since", "until", "step", "words"),
    [
        ("yesterday", None, None, "`from` is no time: 'yesterday'; write seconds since 1970"),
        ("1799990000000", None, None, "milliseconds must be divided by 1000"),
        ("nan", None, None, "`from` is no time in seconds"),
        ("-5", None, None, "`from` is no time in seconds"),
        (None, "soon", None, "`to` is no time"),
        ("-1h", "-2h", None, "`from` must be before `to`"),
        ("now", "now", None, "`from` must be before `to`"),
        (None, None, "0", "`step` must be between 1 s and 31 d, not '0'"),
        (None, None, "nan", "`step` must be between"),
        (None, None, "often", "`step` must be between"),
        ("-24h", None, "1", "more than 11,000 points; take a step of 8 s or more"),
    ],
)
def test_what_is_no_time_is_refused(since: str | None, until: str | None, step: str | None, words: str) -> None:
    """The sentence names the parameter, and what to write."""
    with pytest.raises(Invalid, match=re.escape(words)):
        parse_span(since, until, step, NOW, 5, ALL)


def test_an_instant_has_been() -> None:
    """Nobody knows the picture of tomorrow."""
    assert parse_instant("-30m", NOW) == NOW - HOUR // 2
    with pytest.raises(Invalid, match="lies in the future"):
        parse_instant("2027-01-15T08:00:01Z", NOW)


@given(st.integers(1, 400 * 86_400), st.sampled_from([1.0, 5.0, 7.0, 60.0]))
def test_a_step_nobody_chose_gives_a_chart_that_fits(length_s: int, interval_s: float) -> None:
    """No more points than wanted, no step shorter than a round, and one that people can name where there is one."""
    span = parse_span(f"-{length_s}s", None, None, NOW, interval_s, ALL)

    assert span.step_ms >= interval_s * 1000
    assert len(span.starts()) <= WANTED_POINTS + 1 <= MAX_POINTS
    assert span.step_ms / 1000 in STEPS_S


def test_two_requests_cut_alike() -> None:
    """Steps begin at whole multiples, so a chart that moves on does not flicker."""
    assert list(Span(61_000, 185_000, 60_000).starts()) == [60_000, 120_000, 180_000]


def test_raw_means_no_step() -> None:
    """Every sample as it was."""
    assert parse_span("-24h", None, "raw", NOW, 5, ALL).step_ms == 0


@pytest.mark.parametrize(
    ("since", "until", "step", "step_ms"),
    [
        ("-23h", "-22h", None, 5_000),
        ("-25h", "-24h", None, 60_000),
        ("-25h", None, "2m", 120_000),
        ("-40d", "-39d", None, HOUR),
        ("-40d", None, "1d", 24 * HOUR),
    ],
)
def test_the_step_follows_what_is_kept(since: str, until: str | None, step: str | None, step_ms: int) -> None:
    """As measured for a day, by the minute for a month, by the hour before."""
    assert parse_span(since, until, step, NOW, 5, DAY_AND_MONTH).step_ms == step_ms


@pytest.mark.parametrize(
    ("since", "step", "words"),
    [
        ("-25h", "raw", "kept by the minute; give a step of whole minutes"),
        ("-25h", "90", "kept by the minute"),
        ("-40d", "30m", "kept by the hour; give a step of whole hours"),
    ],
)
def test_a_step_finer_than_what_is_kept_is_refused(since: str, step: str, words: str) -> None:
    """Nobody gets points that only look as fine as what was asked for."""
    with pytest.raises(Invalid, match=words):
        parse_span(since, None, step, NOW, 5, DAY_AND_MONTH)
