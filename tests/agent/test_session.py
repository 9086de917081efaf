"""The state machine is closed: what the table does not list cannot happen and changes nothing."""

from __future__ import annotations

import itertools

import pytest

from pingmon_agent.session import TABLE, ForbiddenEventError, Session, SessionEvent, SessionState

ALL = list(itertools.product(SessionState, SessionEvent))


@pytest.mark.parametrize(("state", "event"), ALL)
def test_every_pair_goes_where_the_table_says_or_is_refused(state: SessionState, event: SessionEvent) -> None:
    """A listed event leads to its state; any other raises and the state stays."""
    session = Session()
    session.state = state
    following = TABLE[state].get(event)
    if following is None:
        with pytest.raises(ForbiddenEventError):
            session.apply(event)

    assert (session.state if following is None else session.apply(event)) == (following or state)


def test_every_state_has_a_row_and_can_be_reached() -> None:
    """No state is missing from the table, and none is dead."""
    reached = {SessionState.OFFLINE}
    for _ in SessionState:
        reached |= {following for state in reached for following in TABLE[state].values()}

    assert set(TABLE) == reached == set(SessionState)


def test_reports_can_only_follow_an_answer() -> None:
    """Approved is reached by the server's word alone, never by connecting."""
    into = {event for row in TABLE.values() for event, following in row.items() if following is SessionState.APPROVED}

    assert into == {SessionEvent.APPROVED}
    assert SessionEvent.APPROVED not in TABLE[SessionState.OFFLINE]


def test_stopped_is_the_end() -> None:
    """Nothing leads out of stopped."""
    assert TABLE[SessionState.STOPPED] == {}
