"""How long the agent stays away, with chance taken out."""

from __future__ import annotations

import random

from pingmon_agent.backoff import Backoff


def highest(low: float, high: float) -> float:
    """Always the upper end."""
    return high


def test_pauses_double_up_to_a_minute() -> None:
    """The upper end of full jitter: 1, 2, 4 ... 60."""
    backoff = Backoff(highest)

    assert [backoff.soon(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_only_a_minute_of_health_resets() -> None:
    """A server that hangs up after a second each time is not hammered."""
    backoff = Backoff(highest)
    for _ in range(5):
        backoff.soon(1.0)

    assert (backoff.soon(59.0), backoff.soon(60.0)) == (32, 1)


def test_a_large_fleet_spreads_even_its_first_try() -> None:
    """spread_s of the last approval is the least width; never below a second."""
    backoff = Backoff(highest)
    backoff.accepted(50.0)
    wide = backoff.soon(100.0)
    backoff.accepted(0.0)

    assert (wide, backoff.spread_s) == (50.0, 1.0)


def test_the_servers_floor_is_kept_and_still_jittered() -> None:
    """Never less than retry_after_s, and not all at exactly that moment."""
    backoff = Backoff(random.Random(7).uniform)
    pauses = [backoff.soon(0.0, 30.0) for _ in range(200)]

    assert min(pauses) >= 30
    assert len(set(pauses)) > 190
    assert Backoff(lambda low, high: low).slow(45.0) == 45.0


def test_waiting_for_a_person_is_a_minute_give_or_take_half() -> None:
    """Pending and hold."""
    assert (Backoff(lambda low, high: low).slow(), Backoff(highest).slow()) == (30.0, 90.0)


def test_a_refused_agent_comes_back_rarely() -> None:
    """15 minutes, then up to an hour; an approval starts anew."""
    backoff = Backoff(highest)
    first = [backoff.rare() for _ in range(4)]
    backoff.accepted(1.0)

    assert first == [900, 1800, 3600, 3600]
    assert backoff.rare() == 900
    assert backoff.rare(3600.0) == 3600


def test_the_first_connection_may_be_spread() -> None:
    """start_spread_s: 0 is at once."""
    assert (Backoff(highest).first(0.0), Backoff(highest).first(15.0)) == (0.0, 15.0)
