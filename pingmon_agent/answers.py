"""The server's words, read with care: how soon to come back, and what it grants. Nonsense counts as not said.

Must not know: what is in flight, the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .ring import Limits
from .session import SessionState
from .wire.contract import ErrorCode, State

MAX_SPREAD_S = 300.0


class Patience(Enum):
    """How soon a refused agent may come back (docs/wire.md lists the codes)."""

    SOON = "soon"  # full jitter, as after a lost connection
    SLOW = "slow"  # once a minute
    WARY = "wary"  # it is not the server that we know: 5 to 15 minutes
    RARE = "rare"  # somebody has to change something first: 15 minutes, then up to an hour


_SLOW = {ErrorCode.PENDING_FULL, ErrorCode.UNKNOWN_KEY}
_RARE = {
    ErrorCode.LEGACY_DISABLED,
    ErrorCode.VERSION,
    ErrorCode.HOSTNAME,
    ErrorCode.IP,
    ErrorCode.PASSPHRASE,
    ErrorCode.PASSPHRASE_EXPIRED,
    ErrorCode.PASSPHRASE_EXHAUSTED,
    ErrorCode.PASSPHRASE_REVOKED,
    ErrorCode.PASSPHRASE_SCOPE,
    ErrorCode.KEY_REQUIRED,
    ErrorCode.CHANNEL,
    ErrorCode.MALFORMED,
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said to a handshake, as far as the connection loop must know it."""

    state: SessionState
    patience: Patience = Patience.SOON
    retry_after_s: float = 0.0
    spread_s: float = 0.0
    code: str = ""
    message: str = ""

    @classmethod
    def of(cls, state: SessionState, word: State, body: Mapping[str, Any]) -> Answer:
        """Read the server's `body`, which says `word`; it leaves the session in `state`."""
        code = str(body.get("code", "")) if word is State.ERROR else ""
        return cls(
            state=state,
            patience=patience_for(word, code),
            retry_after_s=seconds(body.get("retry_after_s"), 3600.0),
            spread_s=spread(body.get("limits")) if word is State.APPROVED else 0.0,
            code=code,
            message=str(body.get("message") or body.get("reason") or "")[:500],
        )


def patience_for(word: State, code: str) -> Patience:
    """How soon to come back after this word, or this error code."""
    if word is State.BLACKLISTED or code in _RARE:
        return Patience.RARE
    if word in (State.PENDING, State.HOLD) or code in _SLOW:
        return Patience.SLOW
    return Patience.SOON


def seconds(value: object, most: float) -> float:
    """A span of time the server named, `most` at most; 0 for none or nonsense."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0.0
    return float(min(value, most))  # in this order: a whole number of any length is JSON, and no float holds it


def spread(limits: object) -> float:
    """Over how many seconds the fleet is to spread its returns; 0 if not said."""
    return seconds(limits.get("spread_s"), MAX_SPREAD_S) if isinstance(limits, Mapping) else 0.0


def granted(offered: object) -> Limits:
    """What the server grants, never above what the contract allows."""
    ours = Limits()
    if not isinstance(offered, Mapping):
        return ours

    def least(name: str, most: int) -> int:
        value = offered.get(name)
        return min(value, most) if type(value) is int and value > 0 else most

    return Limits(
        rounds=least("rounds", ours.rounds), samples=least("samples", ours.samples), bytes=least("bytes", ours.bytes)
    )
