"""Why a round is missing: the whole vocabulary, in the order in which a reason wins over the next (docs/operations.md).

Must not know: how it is found out.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Every missing round has exactly one of these."""

    REJECTED = "rejected"
    HELD = "held"
    RING_EXPIRED = "ring_expired"
    CLOCK = "clock"
    SERVER_AWAY = "server_away"
    AGENT_DOWN = "agent_down"


class NotExpected(StrEnum):
    """Why no round was expected at a time."""

    NOT_APPROVED = "not_approved"
    NOT_A_TARGET = "not_a_target"
    NO_LEDGER = "no_ledger"


WORDS: dict[Reason | NotExpected, str] = {
    Reason.REJECTED: "the server refused these rounds",
    Reason.HELD: "the agent was on hold",
    Reason.RING_EXPIRED: "the agent could not deliver them in time and no longer had them",
    Reason.CLOCK: "the agent's clock was set",
    Reason.SERVER_AWAY: "the server was away",
    Reason.AGENT_DOWN: "nothing was heard from the agent",
    NotExpected.NOT_APPROVED: "the agent was not approved",
    NotExpected.NOT_A_TARGET: "the agent did not have this target",
    NotExpected.NO_LEDGER: "before the ledger began",
}


def reason_of_gap(said: str) -> Reason:
    """What an agent's word for rounds that it gave up means here: an error code of ours, or that they are gone."""
    return Reason.REJECTED if said.startswith("E_") else Reason.RING_EXPIRED
