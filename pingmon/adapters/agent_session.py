"""One agent's connection, and the targets that go out on it.

Must not know: handshakes, reports, what a target set means.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import socketio

from pingmon.services.bundle import Services
from pingmon.services.challenge import Visit
from pingmon.services.limits import Talk
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import EVENT_TARGETS, NAMESPACE, State, WireError

from .bouncer import Bouncer

Json = dict[str, Any]
log = logging.getLogger("pingmon.agents")
TARGETS_AGAIN_S, TARGETS_AGAIN_MAX_S = 1.0, 60.0


@dataclass
class Session:
    """One connection; `agent_no` is set by a handshake that was not refused."""

    sid: str
    observed_ip: str
    talk: Talk
    agent_no: int | None = None
    epoch: str | None = None
    legacy: bool = False
    inst: str = ""
    held: str = ""
    told_state: str = ""
    told_revision: int = -1
    refused_sets: int = 0
    failed: bool = False
    gone: bool = False
    visit: Visit = field(init=False)

    def __post_init__(self) -> None:
        self.visit = Visit(self.observed_ip)


def name_of(services: Services, agent_no: int | None) -> str:
    """For log lines."""
    view = services.registry.snapshot.agents.get(agent_no or 0)
    return view.hostname if view else "unknown"


class TargetPush:
    """Sends an agent its targets until it has taken them."""

    def __init__(self, server: socketio.Server, services: Services, bouncer: Bouncer) -> None:
        self._server, self._services, self._bouncer = server, services, bouncer

    def tell(self, session: Session) -> None:
        snapshot = self._services.registry.snapshot
        view, current = snapshot.agents.get(session.agent_no or 0), snapshot.sets.get(session.agent_no or 0)
        if view is None or view.state is not State.APPROVED or current is None:
            return
        if current.revision == session.told_revision:
            return
        session.told_revision = current.revision
        if session.legacy:
            samples_per_s = len(current.target_ids) / self._services.registry.interval_s
            session.talk = self._bouncer.allow(session.talk, samples_per_s)
        message = self._services.registry.message_for(view.no)
        log.info("targets pushed agent=%s revision=%d count=%d", view.hostname, message.revision, len(message.targets))
        if session.legacy:
            payload: Json = {"targets": [target.address for target in message.targets]}
            self._server.emit(EVENT_TARGETS, payload, to=session.sid, namespace=NAMESPACE)
            return
        payload = self._services.enrolment.gate.sign_targets(session.visit.th1, codec.encode_targets(message))
        answered = partial(self._answered, session, current.revision)
        self._server.emit(EVENT_TARGETS, payload, to=session.sid, namespace=NAMESPACE, callback=answered)

    def _answered(self, session: Session, revision: int, *answer: object) -> None:
        """A refused set goes out again: an agent may see it before the approval that was sent ahead of it."""
        said = answer[0] if answer and isinstance(answer[0], dict) else {}
        if said.get("ok") is True:
            session.refused_sets = 0
            self._note_refusals(session, said)
        elif session.told_revision == revision:
            session.told_revision = -1
            session.refused_sets += 1
            code, why = str(said.get("code"))[:40], str(said.get("message"))[:200]
            log.warning("targets refused agent=%s code=%r: %r", name_of(self._services, session.agent_no), code, why)
            self._server.start_background_task(self._again, session)

    def _note_refusals(self, session: Session, said: Json) -> None:
        name, agent_no, refusals = (
            name_of(self._services, session.agent_no),
            session.agent_no or 0,
            self._services.refusals,
        )
        try:
            refusals.acknowledged(agent_no, said)
        except WireError as error:
            self._services.ingest.reject(error.code)
            log.warning("acknowledgement of targets is malformed agent=%s: %s", name, error.message)
        else:
            if said.get("refused"):
                log.warning("agent refuses targets agent=%s count=%d", name, refusals.count(agent_no))

    def _again(self, session: Session) -> None:
        self._server.sleep(min(TARGETS_AGAIN_MAX_S, TARGETS_AGAIN_S * 2 ** min(session.refused_sets - 1, 6)))
        if not session.gone:
            self.tell(session)
