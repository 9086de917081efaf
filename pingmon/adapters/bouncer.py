"""What an agent is told that comes too often or talks too fast, and what happens when it does not listen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from pingmon.gate import network_of
from pingmon.services.limits import BLOCK_S, MESSAGES_PER_S, Failures, Talk
from pingmon_agent.wire.contract import NAMESPACE, ErrorCode, State

from .lines import Lines

Json = dict[str, Any]
log = logging.getLogger("pingmon.agents")


class Bouncer:
    """`block(peer, seconds)` shuts an address out below TLS; `reject` counts a refusal."""

    def __init__(
        self,
        lines: Lines,
        failures: Failures,
        block: Callable[[str, float], None],
        reject: Callable[[ErrorCode], None],
        now: Callable[[], float],
    ) -> None:
        self._lines, self._failures, self._block, self._reject, self._now = lines, failures, block, reject, now

    def talk(self) -> Talk:
        """A new connection's allowance of messages."""
        return Talk(self._now())

    def too_fast(self, sid: str, talk: Talk, who: str) -> Json | None:
        """None where this message may be heard, or the refusal; who goes on all the same is cut."""
        if talk.hear(self._now()):
            return None
        self._reject(ErrorCode.RATE)
        if talk.hopeless(self._now()):
            self._lines.hard_close(sid, NAMESPACE, "ten times too many messages")
        elif not talk.warned:
            talk.warned = True
            log.warning("messages come too fast agent=%s", who)
        message = f"more than {talk.per_s:g} messages a second; gather samples into one message, or wait"
        # `state` too, for this answers a handshake as well as a report.
        return {"ok": False, "state": State.ERROR, "code": ErrorCode.RATE, "message": message, "retry_after_s": 1}

    def allow(self, talk: Talk, samples_per_s: float) -> Talk:
        """The allowance of an agent that may send each sample by itself: twice the pace is room for its jitter."""
        per_s = max(MESSAGES_PER_S, 2 * samples_per_s)
        return talk if per_s == talk.per_s else Talk(self._now(), per_s)

    def failed(self, address: str) -> None:
        """One more handshake from there has failed, or never came."""
        if self._failures.note(address, self._now()):
            self._block(network_of(address), BLOCK_S)
            log.warning("too many failed handshakes, shut out for %g s from=%s", BLOCK_S, address)

    def unseen(self, address: str) -> Json | None:
        """The refusal of a handshake that is not even looked at, so many from there have failed; None: look at it."""
        wait_s = self._failures.exhausted(address, self._now())
        if wait_s is None:
            return None
        self._reject(ErrorCode.RATE)
        self.failed(address)
        message = "too many failed handshakes from this address; give the agent the right passphrase, then wait"
        return {"state": State.ERROR, "code": ErrorCode.RATE, "message": message, "retry_after_s": math.ceil(wait_s)}
