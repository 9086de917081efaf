"""What the agent says to the server and makes of the answers: handshake, targets, reports, acknowledgements.

No socket, no thread, no clock of its own (`now` is handed in, seconds that never jump): uplink.py drives it over a real
connection, tests over a pretend wire. One report is in flight at a time; nothing is forgotten before the server has it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .answers import Answer, granted, seconds
from .log import say
from .refusals import Refusals
from .ring import Limits, Ring
from .session import Session, SessionEvent, SessionState
from .wire import codec
from .wire.contract import ErrorCode, Handshake, Report, Round, State, TargetSet, WireError

Json = dict[str, Any]
_log = logging.getLogger(__name__)

ERROR_RETRY_S = 5.0
_WAITING = (SessionState.PENDING, SessionState.HOLD)

# Codes that say "not with these rounds": the report is cut in half until the guilty round stands alone and is given up.
_ROUNDS_AT_FAULT = {ErrorCode.TOO_LARGE, ErrorCode.BATCH, ErrorCode.TARGET, ErrorCode.TIME, ErrorCode.MALFORMED}
_WORDS = {State.PENDING: SessionEvent.PENDING, State.HOLD: SessionEvent.HOLD, State.APPROVED: SessionEvent.APPROVED}


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A report to emit as `monitoring_data`; hand `token` back with its acknowledgement."""

    token: int
    payload: Json


@dataclass
class Counts:
    """What went wrong or through since the start; all rise only."""

    reports: int = 0
    rounds: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # by error code
    given_up: int = 0  # rounds declared as a gap
    nonsense: int = 0  # messages that the contract forbids


class Delivery:
    """One agent's side of the contract. Not safe for several threads: one owner calls everything."""

    def __init__(
        self,
        ring: Ring,
        identity: Handshake,
        on_targets: Callable[[TargetSet], None],
        refusals: Refusals | None = None,
        wall_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`wall_ms`: this host's wall clock, by which the server learns how far off it is; None: not said."""
        self._ring, self._identity, self._on_targets = ring, identity, on_targets
        self._refusals, self._wall_ms = refusals or Refusals(), wall_ms
        self._session = Session()
        self._limits = self._allowed = Limits()
        self._epoch, self._greeted = ring.epoch, ""  # what is reported, and what the server was told
        self._cursor = 0  # the server has everything of that epoch up to here
        self._given_up, self._reason = 0, ""  # rounds up to here were refused for good
        self._in_flight: tuple[int, Report] | None = None
        self._token, self._not_before = 0, 0.0
        self._agent_id = ""
        self._floor_rev = self._promised_rev = -1
        self.counts = Counts()

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._session.state

    @property
    def agent_id(self) -> str:
        """As the server named this agent; empty until approved once."""
        return self._agent_id

    @property
    def waiting(self) -> bool:
        """True while somebody has to decide about this agent."""
        return self.state in _WAITING

    @property
    def targets_missing(self) -> bool:
        """True while the set that the approval promised has not come."""
        return self.state is SessionState.APPROVED and max(0, self._floor_rev) < self._promised_rev

    @property
    def in_flight(self) -> int | None:
        """Token of the report that waits for its acknowledgement."""
        return self._in_flight[0] if self._in_flight else None

    @property
    def must_greet(self) -> bool:
        """True once the ring goes on with another epoch than the handshake named: shake hands again, on this line."""
        return self.state is SessionState.APPROVED and self._ring.epoch != self._greeted

    # -- session --

    def greet(self, ip_address: str = "") -> Handshake:
        """Who is there and how far it is, on an open connection; `ip_address` fills in where none is configured."""
        self._session.apply(SessionEvent.GREET)
        self._in_flight = None
        self._greeted, last_seq = self._ring.standing()
        self._follow(self._greeted)
        return dataclasses.replace(
            self._identity,
            ip_address=ip_address or self._identity.ip_address,
            epoch=self._greeted,
            next_seq=last_seq + 1,
            sent_ms=self._wall_ms(),
        )

    def on_handshake(self, body: object) -> Answer:
        """Take the server's word: the answer to `greet`, or its push later. Raises WireError on nonsense."""
        # Compared with a list: what is no text may not be hashable either.
        if not isinstance(body, Mapping) or body.get("state") not in list(State):
            raise self._nonsense("the server's handshake answer has no known state; upgrade the older of the two")
        word = State(body["state"])
        if word is State.APPROVED:
            self._approve(body)
        event = _WORDS.get(word, SessionEvent.REFUSED)
        if event is not SessionEvent.APPROVED:
            self._in_flight = None
        self._session.apply(event)
        return Answer.of(self.state, word, body)

    def _approve(self, body: Mapping[str, Any]) -> None:
        upto, agent_id, revision = body.get("upto"), body.get("agent_id"), body.get("targets_rev")
        if type(upto) is not int or upto < 0 or not isinstance(agent_id, str) or not agent_id:
            raise self._nonsense("the server approved this agent without agent_id and upto; upgrade the server")
        # Another agent_id, or a server restored from a backup: its revisions count anew.
        if agent_id != self._agent_id or (type(revision) is int and revision < self._floor_rev):
            self._floor_rev = -1
        self._agent_id = agent_id
        self._ring.belong_to(agent_id)
        self._promised_rev = revision if type(revision) is int else -1
        self._limits = self._allowed = granted(body.get("limits"))
        self._move_to(self._greeted, upto)

    def _move_to(self, epoch: str, upto: int) -> None:
        """The server has rounds of `epoch` up to `upto`; that may be all, and then the ring offers its next epoch."""
        if self._ring.was_set_back(upto, epoch):
            # Numbers that we have not sent are taken (a restored snapshot of this host): never re-use them.
            _log.warning(say("the server knows more rounds than this agent; new epoch", upto=upto))
            self._ring.new_epoch()
        else:
            self._cursor = upto if epoch == self._epoch else self._cursor
            self._ring.ack(upto, epoch)
        self._follow(self._ring.epoch)

    def _follow(self, epoch: str) -> None:
        if epoch != self._epoch:
            self._epoch, self._cursor, self._given_up, self._in_flight = epoch, 0, 0, None

    def lost(self) -> None:
        """The connection is gone: what was in flight counts as not sent, and the next server may be a restored one."""
        self._in_flight = None
        self._ring.offer_again()
        if self.state not in (SessionState.OFFLINE, SessionState.STOPPED):
            self._session.apply(SessionEvent.LOST)

    # -- targets --

    def on_targets(self, body: object) -> Json:
        """The acknowledgement to `update_targets`; a good set goes to the schedule, a bad one changes nothing."""
        try:
            targets = codec.decode_targets(body)
            self._admit(targets)
        except WireError as err:
            return self.refuse_targets(err)
        self._floor_rev = targets.revision
        self._on_targets(targets)
        return self._refusals.acknowledgement(targets)

    def refuse_targets(self, error: WireError) -> Json:
        """The acknowledgement to a set that changes nothing; `revision` is of the one that stays."""
        self.counts.nonsense += 1
        _log.warning(say("target set refused", code=error.code, reason=error.message))
        return {"ok": False, "code": str(error.code), "message": error.message, "revision": self._floor_rev}

    def _admit(self, targets: TargetSet) -> None:
        if self.state is not SessionState.APPROVED:
            raise WireError(ErrorCode.STATE, f"targets are taken once approved; this agent is {self.state}")
        if targets.agent_id != self._agent_id:
            raise WireError(ErrorCode.TARGET, f"these targets are for agent {targets.agent_id}, not for this one")
        # Not the promise alone nor what is in use alone: an old set, truly signed, may be played back at any time.
        floor = max(self._floor_rev, self._promised_rev)
        if targets.revision < floor:
            raise WireError(ErrorCode.TARGET, f"revision {targets.revision} is older than {floor}, which is in use")

    # -- reports --

    def next_report(self, now: float) -> Outgoing | None:
        """The next report to emit, or None: not approved, one in flight, told to wait, or nothing to say."""
        if self.state is not SessionState.APPROVED or self._in_flight or now < self._not_before:
            return None
        self._follow(self._ring.epoch)
        done = max(self._cursor, self._given_up)
        rounds = self._ring.after(done, self._allowed)
        if not rounds or rounds[0].epoch != self._epoch:
            self._ring.finish(done, self._epoch)
            return None
        gap, sent_ms = self._gap(rounds[0]), self._wall_ms()
        refused = self._refusals.news(self._floor_rev)
        report = Report(epoch=self._epoch, rounds=tuple(rounds), gap=gap, sent_ms=sent_ms, refused=refused)
        self._token += 1
        self._in_flight = (self._token, report)
        return Outgoing(token=self._token, payload=codec.encode_report(report))

    def _gap(self, first: Round) -> tuple[int, int, str] | None:
        if first.seq == self._cursor + 1:
            return None
        reason = self._reason if first.seq - 1 == self._given_up else self._ring.why_missing(first.seq)
        return self._cursor + 1, first.seq - 1, reason

    def ready_in(self, now: float) -> float | None:
        """Seconds until a report that was told to wait may be tried again; None if nothing waits for time."""
        return self._not_before - now if self._not_before > now else None

    def on_ack(self, token: int, body: object, now: float) -> bool:
        """Take the acknowledgement of report `token`; False asks for a new handshake on this or a new connection.

        An acknowledgement of anything but the report in flight is stale and ignored.
        """
        if self._in_flight is None or self._in_flight[0] != token:
            return True
        report, self._in_flight = self._in_flight[1], None
        good = False
        if isinstance(body, Mapping) and type(body.get("ok")) is bool:
            good = self._committed(report, body) if body["ok"] else self._refused(report, body, now)
        else:
            self.counts.nonsense += 1
        if not good:
            # Whatever is wrong with the two of us, asking again at full speed will not mend it.
            self._not_before = max(self._not_before, now + ERROR_RETRY_S)
        return good and not self.must_greet

    def _committed(self, report: Report, body: Mapping[str, Any]) -> bool:
        upto, (epoch, last_seq) = body.get("upto"), self._ring.standing()
        if type(upto) is not int or upto < 0 or (epoch == report.epoch and upto > last_seq):
            self.counts.nonsense += 1
            return False
        if report.gap is not None:
            self.counts.given_up += report.gap[1] - report.gap[0] + 1
            _log.warning(say("rounds given up", first=report.gap[0], last=report.gap[1], reason=report.gap[2]))
        self._refusals.arrived(report)
        self.counts.reports += 1
        self.counts.rounds += len(report.rounds)
        self._move_to(report.epoch, upto)
        rounds = min(self._limits.rounds, max(1, self._allowed.rounds) * 2)
        self._allowed = dataclasses.replace(self._allowed, rounds=rounds)
        return True

    def _refused(self, report: Report, body: Mapping[str, Any], now: float) -> bool:
        code = str(body.get("code", ""))
        self.counts.refused[code] = self.counts.refused.get(code, 0) + 1
        told = seconds(body.get("retry_after_s"), 3600.0)
        self._not_before = now + told
        if code == ErrorCode.SEQ_GAP:
            return self._rewind(report.epoch, body.get("expected"), now)
        if code in _ROUNDS_AT_FAULT:
            self._halve(report, code)
            return True
        if code in (ErrorCode.STATE, ErrorCode.UNKNOWN_EVENT):
            # A new handshake tells when to go on; the pause is only there so that the two do not spin.
            self._not_before = now + ERROR_RETRY_S
            return False
        self._not_before = now + (told or ERROR_RETRY_S)
        return True

    def _rewind(self, epoch: str, expected: object, now: float) -> bool:
        if type(expected) is not int or expected < 1:
            self.counts.nonsense += 1
            return False
        if expected - 1 == self._cursor:
            # It wants what we just sent (a gap it does not accept): not again at once, or the two would spin.
            self._not_before = max(self._not_before, now + ERROR_RETRY_S)
        self._move_to(epoch, expected - 1)
        return True

    def _halve(self, report: Report, code: str) -> None:
        count = len(report.rounds)
        if count > 1:
            self._allowed = dataclasses.replace(self._allowed, rounds=count // 2)
            return
        self._given_up, self._reason = report.rounds[0].seq, code

    def _nonsense(self, message: str) -> WireError:
        self.counts.nonsense += 1
        return WireError(ErrorCode.MALFORMED, message)
