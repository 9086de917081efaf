"""THE AGENT STATE MACHINE: where an agent stands with its server, as a table; no I/O, no clock.

An event that the table does not list raises and changes nothing. docs/ draws its picture from TABLE.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType


class SessionState(StrEnum):
    """Where the agent stands with its server."""

    OFFLINE = "offline"  # no connection; measuring goes on into the ring
    GREETING = "greeting"  # connected, handshake sent, no answer yet
    PENDING = "pending"  # an administrator has to decide
    HOLD = "hold"  # approved once, now stopped by the server
    APPROVED = "approved"  # reports may be sent
    REFUSED = "refused"  # blacklisted, or refused with an error; the connection is given up
    STOPPED = "stopped"  # the agent is ending


class SessionEvent(StrEnum):
    """What can happen to a session."""

    GREET = "greet"  # a handshake was sent on an open connection
    PENDING = "pending"  # ... and these are the server's words
    HOLD = "hold"
    APPROVED = "approved"
    REFUSED = "refused"
    LOST = "lost"  # the connection is gone
    STOP = "stop"


S, E = SessionState, SessionEvent
_WORDS = {E.PENDING: S.PENDING, E.HOLD: S.HOLD, E.APPROVED: S.APPROVED, E.REFUSED: S.REFUSED}
_ALIVE = {**_WORDS, E.GREET: S.GREETING, E.LOST: S.OFFLINE, E.STOP: S.STOPPED}
TABLE = MappingProxyType(
    {
        S.OFFLINE: {E.GREET: S.GREETING, E.STOP: S.STOPPED},
        S.GREETING: {**_WORDS, E.LOST: S.OFFLINE, E.STOP: S.STOPPED},
        S.PENDING: _ALIVE,  # GREET: it asks again, an answer may have been lost
        S.HOLD: _ALIVE,
        S.APPROVED: _ALIVE,  # the server may take an approval back at any time
        S.REFUSED: {E.LOST: S.OFFLINE, E.STOP: S.STOPPED},
        S.STOPPED: {},
    }
)


class ForbiddenEventError(Exception):
    """An event that cannot happen in this state: a bug of ours or nonsense of the peer; nothing was changed."""


class Session:
    """The current state; `apply` is the only way to change it."""

    def __init__(self) -> None:
        self.state = SessionState.OFFLINE

    def apply(self, event: SessionEvent) -> SessionState:
        """Go on by `event` and return the new state; raises ForbiddenEventError and stays where it was."""
        following = TABLE[self.state].get(event)
        if following is None:
            raise ForbiddenEventError(f"{event} cannot happen while {self.state}")
        self.state = following
        return following
