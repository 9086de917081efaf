"""The loop that connects, stays, and comes back after each end of a connection.

The library's own reconnection is off: it never returns after the server hung up, and everybody's jitter is the same.
One thread takes messages out of the link's inbox, drives Delivery, and keeps the timers. What the messages mean, only
delivery.py knows.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .answers import Answer, Patience
from .backoff import Backoff
from .config import Server
from .delivery import Delivery
from .door import CHALLENGE, Door
from .link import CLOSE_S, Link, Message
from .log import Cause, say
from .pulse import Pulse
from .session import SessionState
from .tls import ConnectError, client_context
from .visit import Timers, Visit
from .wire.contract import EVENT_DATA, EVENT_HANDSHAKE, ErrorCode, WireError
from .wire.seal import UntrustedError

_log = logging.getLogger(__name__)
ANSWER_TIMEOUT_S = 15.0
ACK_TIMEOUT_S = 20.0
TARGETS_WAIT_S = 30.0  # approved, but the promised target set has not come: begin anew
_HOUR_S = 3600.0
_MISMATCH = (
    "; it was told nothing secret and is tried again in 5 to 15 minutes; "
    "if the server has a new identity, give this agent its pin"
)
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.005, 60.0
_LONGEST_WAIT_S = 10.0  # then the loop turns once and waits on, so that a watcher sees it
_SLACK_S = 30.0
_OPEN_S = 300.0  # a resolver whose servers are all silent takes minutes, and a restart would not mend that


@dataclass
class UplinkCounts:
    """For the metrics; `connections` counts those that reached the handshake."""

    connections: int = 0
    failures: int = 0
    faults: int = 0  # exceptions in the loop: bugs
    connected: bool = False
    certificate_expires: float = 0.0


class Uplink:
    """The thread that keeps the agent connected. `on_answer` hears each word of the server about this agent."""

    def __init__(
        self,
        server: Server,
        delivery: Delivery,
        door: Door,
        *,
        start_spread_s: float,
        on_answer: Callable[[Answer], None],
    ):
        self._server, self._delivery, self._door, self._on_answer = server, delivery, door, on_answer
        self._backoff = Backoff()
        self._start_spread_s = start_spread_s
        self._stopping = threading.Event()
        self._flush_until = 0.0
        self._link: Link | None = None
        self._trouble, self._refusal = Cause(_log), Cause(_log, every_s=_HOUR_S)
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self.counts, self.pulse = UplinkCounts(), Pulse(_SLACK_S)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def notify(self) -> None:
        """A round has been put into the ring."""
        link = self._link
        if link is not None:
            link.inbox.put(Message("wake"))

    def stop(self, flush_s: float) -> None:
        """Deliver what is left for up to `flush_s`, then end."""
        self._flush_until = time.monotonic() + flush_s
        self._stopping.set()
        self.notify()
        if self._thread.is_alive():
            self._thread.join(flush_s + 2 * CLOSE_S)

    def _wait(self, pause_s: float) -> None:
        """Stay away for up to an hour, and turn all the while."""
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0 and not self._stopping.is_set():
            self.pulse.beat(_LONGEST_WAIT_S)
            self._stopping.wait(min(left, _LONGEST_WAIT_S))

    def _run(self) -> None:
        self._wait(self._backoff.first(self._start_spread_s))
        while not self._stopping.is_set():
            try:
                pause = self._visit_once()
            except Exception:  # noqa: BLE001 - one of the three loop heads
                self.counts.faults += 1
                _log.exception("the uplink met a bug; please report it")
                pause = self._backoff.soon(0.0)
            self._wait(pause)

    def _visit_once(self) -> float:
        """Connect, stay as long as it lasts, and return the pause before the next time, in seconds."""
        self.pulse.beat(_OPEN_S)
        link, began = Link(), time.monotonic()
        visit: Visit | None = None
        try:
            visit = self._open(link)
            self._link = link
            self._stay(visit)
        except ConnectError as err:
            self.counts.failures += 1
            self._trouble.report(f"cannot connect: {err}", server=self._server.url)
        finally:
            self._link, self.counts.connected = None, False
            self._delivery.lost()
            link.close()
        return self._pause(visit, time.monotonic() - began)

    def _open(self, link: Link) -> Visit:
        tls = link.open(self._server, client_context(self._server.ca_file, self._server.minimum_tls))
        certificate = tls.getpeercert() or {}
        self.counts.certificate_expires = float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
        self.counts.connections += 1
        self.counts.connected = True
        self._door.opened(tls.getpeercert(binary_form=True) or b"")
        return Visit(link, tls.getsockname()[0])

    def _pause(self, visit: Visit | None, lasted_s: float) -> float:
        answer = visit.last if visit else None
        if visit is not None and answer is None and not self._stopping.is_set():
            self._trouble.report(f"the connection ended before the server answered: {visit.ended}")
        if answer is None or answer.state is not SessionState.REFUSED:
            if visit is not None and answer is not None and not self._stopping.is_set():
                _log.info(say("connection ended", reason=visit.ended, after_s=round(lasted_s, 1)))
            return self._backoff.soon(lasted_s if answer else 0.0)
        if answer.patience is Patience.WARY:
            return self._backoff.wary()
        if answer.patience is Patience.RARE:
            return self._backoff.rare(answer.retry_after_s)
        if answer.patience is Patience.SLOW:
            return self._backoff.slow(answer.retry_after_s)
        return self._backoff.soon(0.0, answer.retry_after_s)

    # -- while connected --

    def _stay(self, visit: Visit) -> None:
        self._greet(visit)
        while not visit.ended:
            for message in self._receive(visit):
                self._handle(visit, message)
            self._tick(visit, time.monotonic())
            if self._stopping.is_set() and self._flushed():
                visit.ended = "stopping"

    def _flushed(self) -> bool:
        idle = self._delivery.state is not SessionState.APPROVED or self._delivery.in_flight is None
        return idle or time.monotonic() >= self._flush_until

    def _receive(self, visit: Visit) -> list[Message]:
        """The next message, or none if a timer runs out first; what came too early waits for the answer."""
        if visit.answered and visit.early:
            early, visit.early = visit.early, []
            return early
        now = time.monotonic()
        due = visit.timers.next()
        pause = _LONGEST_WAIT_S if due is None else min(_LONGEST_WAIT_S, due - now)
        again = self._delivery.ready_in(now)
        pause = min(pause, again if again is not None else pause)
        if self._stopping.is_set():
            pause = min(pause, self._flush_until - now)
        self.pulse.beat(max(0.0, pause))
        try:
            message = visit.link.inbox.get(timeout=max(0.0, pause))
        except queue.Empty:
            return []
        if not visit.answered and message.kind in ("push", "targets"):
            visit.early.append(message)
            return []
        return [message]

    def _greet(self, visit: Visit) -> None:
        visit.answered = False
        visit.timers = Timers(answer_by=time.monotonic() + ANSWER_TIMEOUT_S)
        visit.link.emit(EVENT_HANDSHAKE, self._door.greet(self._delivery.greet(visit.ip_address)), "answer")

    def _pause_between_epochs(self, visit: Visit) -> float:
        """Next to nothing, but growing while no report comes through: a server in confusion must not be flooded."""
        visit.turns += 1
        return float(min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**visit.turns))

    def _handle(self, visit: Visit, message: Message) -> None:
        if message.kind in ("answer", "push"):
            self._listen(visit, message.body)
        elif message.kind == "targets" and message.reply is not None:
            message.reply.put(self._targets(message.body))
            if not self._delivery.targets_missing:
                visit.timers.targets_by = None
        elif message.kind == "ack":
            self._acknowledge(visit, message)
        elif message.kind == "lost":
            visit.ended = str(message.body) or "lost"

    def _targets(self, body: object) -> dict[str, object]:
        try:
            self._door.check_targets(body)
        except UntrustedError as err:
            return self._delivery.refuse_targets(WireError(ErrorCode.SIGNATURE, str(err)))
        return self._delivery.on_targets(body)

    def _listen(self, visit: Visit, body: object) -> None:
        """A word of whoever is at the other end: a challenge to answer, or about this agent if it is our server's."""
        try:
            if isinstance(body, dict) and body.get("state") == CHALLENGE:
                visit.link.emit(EVENT_HANDSHAKE, self._door.prove(body), "answer")
            elif (again := self._door.again(body)) is not None:
                visit.link.emit(EVENT_HANDSHAKE, again, "answer")
            else:
                self._door.check(body)
                self._hear(visit, body)
        except UntrustedError as err:
            visit.last = Answer(state=SessionState.REFUSED, patience=Patience.WARY, message=str(err))
            visit.ended = f"server identity mismatch: {err}"
            self._refusal.report(visit.ended + _MISMATCH, server=self._server.url)

    def _hear(self, visit: Visit, body: object) -> None:
        try:
            answer = self._delivery.on_handshake(body)
        except WireError as err:
            visit.ended = err.message
            return
        self._note(visit.last, answer)
        visit.last, visit.answered = answer, True
        visit.timers = Timers(ack_by=visit.timers.ack_by if self._delivery.in_flight is not None else None)
        if answer.state is SessionState.APPROVED:
            self._backoff.accepted(answer.spread_s)
            if self._delivery.targets_missing:
                visit.timers.targets_by = time.monotonic() + TARGETS_WAIT_S
        elif answer.state is SessionState.REFUSED:
            visit.ended = f"refused {answer.code or answer.message}".strip()
        else:
            visit.timers.ask_at = time.monotonic() + self._backoff.slow(answer.retry_after_s / 2)
        self._on_answer(answer)

    def _note(self, before: Answer | None, answer: Answer) -> None:
        if answer.state is SessionState.REFUSED:
            said = answer.message or "no reason given"
            self._refusal.report(f"the server refuses this agent: {said}", code=answer.code or "blacklisted")
            return
        self._refusal.clear()
        self._trouble.clear()
        if before is None:
            _log.info(say("connected", server=self._server.url))
        if before is None or before.state is not answer.state:
            _log.info(
                say(f"state {answer.state}", reason=answer.message or "-", agent_id=self._delivery.agent_id or "-")
            )

    def _acknowledge(self, visit: Visit, message: Message) -> None:
        if message.token == self._delivery.in_flight:
            visit.timers.ack_by = None
        if not self._delivery.on_ack(message.token, message.body, time.monotonic()):
            self._greet(visit)
        else:
            visit.turns = 0

    def _tick(self, visit: Visit, now: float) -> None:
        timers = visit.timers
        if timers.answer_by is not None and now >= timers.answer_by:
            visit.ended = "no answer to the handshake in time"
        elif timers.ack_by is not None and now >= timers.ack_by:
            visit.ended = "no acknowledgement of a report in time"
        elif timers.targets_by is not None and now >= timers.targets_by:
            visit.ended = "the promised targets did not come in time"
        elif timers.ask_at is not None and now >= timers.ask_at:
            self._greet(visit)
        elif self._delivery.must_greet:
            timers.ask_at = timers.ask_at or now + self._pause_between_epochs(visit)
        elif (report := self._delivery.next_report(now)) is not None:
            timers.ack_by = now + ACK_TIMEOUT_S
            visit.link.emit(EVENT_DATA, report.payload, "ack", report.token)
