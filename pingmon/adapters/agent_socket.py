"""The agents' end of the line: Socket.IO namespace `/agent` onto enrolment and ingest.

Raw python-socketio handlers, not Flask-SocketIO's: a report costs a third without a request context. Nothing here
decides: it knows which connection is which agent, and carries answers. Must not know: the database, Flask, the grid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import socketio

from pingmon.services.bundle import Services
from pingmon.services.enrolment import DUPLICATE, Greeting
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import (
    EVENT_DATA,
    EVENT_HANDSHAKE,
    NAMESPACE,
    ErrorCode,
    State,
    WireError,
    check_ip,
)
from pingmon_agent.wire.legacy import decode_legacy

from .agent_session import Session, TargetPush, name_of
from .bouncer import Bouncer
from .lines import REFUSED, Lines
from .packet import MALFORMED

Json = dict[str, Any]
log = logging.getLogger("pingmon.agents")
RETRY_S = 30
# A current agent answers these by splitting or rewinding, which ends; pauses in between would hold fresh data back.
AT_ONCE = (ErrorCode.TARGET, ErrorCode.BATCH, ErrorCode.SEQ_GAP)
# The acknowledgement of a handshake leaves first, then the targets it announces.
ACK_FIRST_S = 0.02
ALIVE_S, ALIVE_STEP_S = 5.0, 0.05  # how long an agent may take to show that it lives when its key comes again


class AgentSocket:
    """All agent connections of this process."""

    def __init__(self, server: socketio.Server, services: Services, lines: Lines, bouncer: Bouncer) -> None:
        self._server, self._services, self._lines, self._bouncer = server, services, lines, bouncer
        self._sessions: dict[str, Session] = {}
        self._by_agent: dict[int, str] = {}
        self._targets = TargetPush(server, services, bouncer)
        self.faults = 0
        for event, handler in (
            ("connect", self._connect),
            ("disconnect", self._disconnect),
            (EVENT_HANDSHAKE, self._guarded(self._handshake)),
            (EVENT_DATA, self._guarded(self._data)),
            (MALFORMED, self._guarded(self._malformed)),
            ("*", self._unknown),
        ):
            server.on(event, handler, namespace=NAMESPACE)
        services.registry.listeners.append(self._on_change)

    @property
    def connections(self) -> int:
        """Open connections, for metrics."""
        return len(self._sessions)

    def _connect(self, sid: str, environ: Json, _auth: object = None) -> None:
        observed = check_ip(str(environ.get("REMOTE_ADDR", "")).partition("%")[0])
        self._sessions[sid] = Session(sid, observed, self._bouncer.talk())

    def _disconnect(self, sid: str, _reason: object = None) -> None:
        session = self._sessions.pop(sid, None)
        self._lines.unsettle(sid, NAMESPACE)
        if session is not None:
            session.gone = True
            self._leave(session)
            if session.agent_no is None and not session.failed:
                self._bouncer.failed(session.observed_ip)

    def _leave(self, session: Session) -> None:
        """This connection no longer speaks for its agent: it is gone, or another one now."""
        if session.agent_no is None or self._by_agent.get(session.agent_no) != session.sid:
            return
        del self._by_agent[session.agent_no]
        self._services.registry.connected.discard(session.agent_no)
        session.told_revision = -1
        log.info("agent disconnected agent=%s", self._name(session.agent_no))

    def _guarded(self, handler: Callable[[Session, object], Json]) -> Callable[..., Json | None]:
        """One fault must not end a connection: it is answered, counted, and logged if it is ours."""

        def run(sid: str, data: object, wants_ack: bool) -> Json | None:
            session = self._sessions.get(sid)
            if session is None:
                return None
            try:
                too_fast = self._bouncer.too_fast(sid, session.talk, self._name(session.agent_no))
                answer = too_fast or handler(session, data)
            except Exception:
                self.faults += 1
                log.exception("handler failed agent=%s", self._name(session.agent_no))
                answer = _refusal(WireError(ErrorCode.SERVER, "the server failed; its log says why"), handler)
            if not wants_ack and (handler == self._handshake or answer.get("ok") is False):
                event = EVENT_HANDSHAKE if handler == self._handshake else REFUSED
                self._server.emit(event, answer, to=sid, namespace=NAMESPACE)
            return answer

        return run

    def _unknown(self, event: str, sid: str, _data: object = None, wants_ack: object = None) -> Json | None:
        def refuse(_session: Session, _data: object) -> Json:
            self._services.ingest.reject(ErrorCode.UNKNOWN_EVENT)
            message = f"{event[:40]!r} is no event of this contract; there are {EVENT_HANDSHAKE} and {EVENT_DATA}"
            return {"ok": False, "code": ErrorCode.UNKNOWN_EVENT, "message": message}

        return self._guarded(refuse)(sid, None, wants_ack is True)

    def _malformed(self, _session: Session, fault: object) -> Json:
        self._services.ingest.reject(ErrorCode.MALFORMED)
        return {"ok": False, "code": ErrorCode.MALFORMED, "message": str(fault)}

    def _handshake(self, session: Session, data: object) -> Json:
        refusal = self._bouncer.unseen(session.observed_ip)
        if refusal is not None:
            session.failed = True
            self._server.start_background_task(self._hang_up, session, "too many failed handshakes")
            return refusal
        try:
            heard = self._services.enrolment.hear(session.visit, data)
            return self._let_in(session, heard) if isinstance(heard, Greeting) else heard
        except WireError as error:
            self._services.ingest.reject(error.code)
            log.warning("handshake refused from=%s code=%s: %s", session.observed_ip, error.code, error.message)
            session.failed = True
            self._bouncer.failed(session.observed_ip)
            return self._services.enrolment.error(error.code, error.message, RETRY_S)

    def _let_in(self, session: Session, greeting: Greeting) -> Json:
        """This connection speaks for that agent from now on, unless another one does and is alive."""
        hello, agent_no = greeting.hello, greeting.agent_no
        if session.agent_no != agent_no:
            self._leave(session)
        session.agent_no, session.epoch, session.legacy, session.held = agent_no, hello.epoch, hello.legacy, ""
        session.inst = greeting.inst
        self._lines.settle(session.sid, NAMESPACE)
        if self._is_duplicate(session, agent_no):
            session.held = DUPLICATE
            log.error("key used twice agent=%s from=%s: clone or thief", self._name(agent_no), session.observed_ip)
            self._services.enrolment.note_duplicate(agent_no, session.observed_ip)
            return self._reply(session)
        self._services.enrolment.arrive(greeting, session.observed_ip)
        self._take_over(session, agent_no)
        if hello.sent_ms is not None:
            self._services.clocks.heard(agent_no, hello.sent_ms)
        answer = self._reply(session)
        log.info(
            "agent connected agent=%s from=%s state=%s", self._name(agent_no), session.observed_ip, answer["state"]
        )
        self._server.start_background_task(self._after_handshake, session)
        return answer

    def _hang_up(self, session: Session, why: str) -> None:
        self._server.sleep(ACK_FIRST_S)
        self._lines.hang_up(session.sid, NAMESPACE, why)

    def _is_duplicate(self, session: Session, agent_no: int) -> bool:
        """Whether the agent has another connection, of another process, that answers within 5 s."""
        first, alive = self._sessions.get(self._by_agent.get(agent_no, "")), list[bool]()
        if first is None or first is session or not session.inst or first.inst in ("", session.inst):
            return False
        answered = lambda *_: alive.append(True)  # noqa: E731
        self._server.emit(EVENT_HANDSHAKE, self._reply(first), to=first.sid, namespace=NAMESPACE, callback=answered)
        for _ in range(round(ALIVE_S / ALIVE_STEP_S)):
            if alive or first.sid not in self._sessions or self._by_agent.get(agent_no) != first.sid:
                break
            self._server.sleep(ALIVE_STEP_S)
        return bool(alive)

    def _take_over(self, session: Session, agent_no: int) -> None:
        """One live connection per agent: the newest, for an agent whose old one hangs must not be locked out."""
        older = self._by_agent.get(agent_no)
        self._by_agent[agent_no] = session.sid
        self._services.registry.connected.add(agent_no)
        if older is not None and older != session.sid:
            log.warning("agent connected twice, the older connection goes agent=%s", self._name(agent_no))
            self._lines.hang_up(older, NAMESPACE, "the agent has a newer connection")

    def _after_handshake(self, session: Session) -> None:
        self._server.sleep(ACK_FIRST_S)
        self._targets.tell(session)
        if session.told_state == State.BLACKLISTED:
            self._lines.hang_up(session.sid, NAMESPACE, "blacklisted")

    def _data(self, session: Session, data: object) -> Json:
        try:
            agent_no = self._approved(session)
            if session.legacy:
                answer = self._services.legacy.submit(agent_no, decode_legacy(data))
            else:
                answer = self._current_report(session, agent_no, data)
        except WireError as error:
            self._services.ingest.reject(error.code)
            log.warning("report refused agent=%s code=%s: %s", self._name(session.agent_no), error.code, error.message)
            refusal = _refusal(error, self._data)
            if error.code in AT_ONCE and not session.legacy:
                refusal["retry_after_s"] = 0
                session.talk.progress()
            if error.code is ErrorCode.SEQ_GAP and session.agent_no is not None:
                refusal["expected"] = self._services.ingest.upto(session.agent_no, session.epoch or "") + 1
            return refusal
        self._services.registry.touch(agent_no)
        if answer["ok"] and not answer.get("dup") and not session.legacy:
            session.talk.progress()
        return answer

    def _approved(self, session: Session) -> int:
        view = self._services.registry.snapshot.agents.get(session.agent_no or 0)
        if session.agent_no is None or view is None:
            raise WireError(ErrorCode.STATE, "shake hands before you send data")
        if session.held:
            raise WireError(
                ErrorCode.STATE, "another machine uses this agent's key; keep the data until it is released"
            )
        if (why := self._services.enrolment.shut_out(view)) is not None:
            raise WireError(ErrorCode.STATE, why.message)
        if view.state is not State.APPROVED:
            raise WireError(ErrorCode.STATE, f"this agent is {view.state}; keep the data until it is approved")
        return session.agent_no

    def _current_report(self, session: Session, agent_no: int, data: object) -> Json:
        report = codec.decode_report(data)
        if report.epoch != session.epoch:
            raise WireError(ErrorCode.STATE, "the report's epoch is not that of the handshake; shake hands again")
        answer = self._services.ingest.submit(agent_no, report)
        if report.refused is not None:
            self._services.refusals.reported(agent_no, report.refused)
        return answer

    # -- pushes --

    def _on_change(self, concerned: frozenset[int]) -> None:
        for agent_no in concerned:
            session = self._sessions.get(self._by_agent.get(agent_no, ""))
            if session is not None:
                self._server.start_background_task(self._tell, session)

    def _tell(self, session: Session) -> None:
        before = session.told_state
        answer = self._reply(session)
        if answer["state"] != before:
            log.info("state changed agent=%s state=%s", self._name(session.agent_no), answer["state"])
            self._server.emit(EVENT_HANDSHAKE, answer, to=session.sid, namespace=NAMESPACE)
        self._targets.tell(session)
        if answer["state"] in (State.BLACKLISTED, State.ERROR):
            self._lines.hang_up(session.sid, NAMESPACE, answer["state"])

    def _reply(self, session: Session) -> Json:
        agent_no = session.agent_no or 0
        upto = self._services.ingest.upto(agent_no, session.epoch or "")
        answer = self._services.enrolment.reply(agent_no, upto, session.visit, session.held)
        session.told_state = answer["state"]
        if answer["state"] == State.APPROVED:
            self._lines.trust(session.sid, NAMESPACE)
        return answer

    def _name(self, agent_no: int | None) -> str:
        return name_of(self._services, agent_no)


def _refusal(error: WireError, handler: Callable[..., Json]) -> Json:
    body: Json = {"code": error.code, "message": error.message, "retry_after_s": RETRY_S}
    return body | ({"state": State.ERROR} if handler.__name__ == "_handshake" else {"ok": False})
