"""An agent that can say anything: the sealed exchange step by step, honest unless a test changes what is said.

`Applicant` builds the messages and knows no connection; `Caller` is one on a real line, over the agent's own TLS.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any

from pingmon_agent.config import Server as Address
from pingmon_agent.link import Link
from pingmon_agent.tls import client_context
from pingmon_agent.wire import seal
from pingmon_agent.wire.contract import EVENT_HANDSHAKE
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.seal import Challenge, Identity, Outer

from .processes import Server

Json = dict[str, Any]


@dataclass
class Applicant:
    """Who wants to be let in. `leaf`: the certificate (DER) it saw."""

    hostname: str
    pin: str
    leaf: bytes
    ip_address: str = "127.0.0.1"
    identity: Identity = field(default_factory=lambda: Identity(secrets.token_bytes(32)))
    inst: str = field(default_factory=lambda: secrets.token_hex(8))
    nonce: bytes = b""

    def hello(self) -> Json:
        """M1."""
        text, self.nonce = seal.hello()
        return self._fields(text)

    def challenged(self, body: Json) -> Challenge:
        """R1, checked as the agent checks it."""
        return seal.check_challenge(body, self.nonce, [self.pin])

    def sealed(self, body: Json, passphrase: str, **ext: Any) -> Json:
        """M2a."""
        outer = Outer(self.hostname, self.ip_address, "1")
        return self._fields(seal.seal(self.challenged(body), outer, self.ext(**ext), self.identity, passphrase)[0])

    def login(self, body: Json, **ext: Any) -> Json:
        """M2b."""
        outer = Outer(self.hostname, self.ip_address, "1")
        return self._fields(seal.login(self.challenged(body), outer, self.ext(**ext), self.identity)[0])

    def ext(self, **changes: Any) -> Json:
        """The agent's facts."""
        tls = b64u(hashlib.sha256(self.leaf).digest())
        return {"clk": 0, "epoch": "00c0ffee00c0ffee", "inst": self.inst, "next": 1, "tls": tls} | changes

    def _fields(self, text: str) -> Json:
        return {"passphrase": text, "hostname": self.hostname, "ip_address": self.ip_address, "version": "1"}


class Caller:
    """A connection to a real server; `close` it."""

    def __init__(self, server: Server, pin: str, hostname: str = "probe-1", url: str = "", **who: Any) -> None:
        address = Address(url=(url or server.url).replace("https", "wss"), ca_file=str(server.ca_file), identity=pin)
        self._link = Link()
        tls = self._link.open(address, client_context(address.ca_file))
        leaf = tls.getpeercert(binary_form=True)
        assert leaf is not None
        self.who = Applicant(hostname, pin, leaf, **who)
        self.pushes: list[Json] = []
        self.targets: list[Json] = []
        self.lost = False

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def ask(self, event: str, payload: object, deadline_s: float = 10.0) -> Json:
        """The acknowledgement of one message."""
        self._link.emit(event, payload, "said")  # type: ignore[arg-type]  # also what no agent would say
        answer = self._take("said", deadline_s)
        assert isinstance(answer, dict), answer
        return answer

    def enrol(self, passphrase: str, **ext: Any) -> Json:
        """M1, M2a."""
        return self.ask(EVENT_HANDSHAKE, self.who.sealed(self.challenge(), passphrase, **ext))

    def come_back(self, **ext: Any) -> Json:
        """M1, M2b."""
        return self.ask(EVENT_HANDSHAKE, self.who.login(self.challenge(), **ext))

    def challenge(self) -> Json:
        """M1."""
        return self.ask(EVENT_HANDSHAKE, self.who.hello())

    def moved(self, ip_address: str) -> Caller:
        """The same agent says that it is elsewhere."""
        self.who = replace(self.who, ip_address=ip_address)
        return self

    def pushed(self, state: str, deadline_s: float = 10.0) -> Json:
        """The push that says this state; those on the way stay in `pushes`."""
        end = time.monotonic() + deadline_s
        while True:
            body = self._take("push", end - time.monotonic())
            if isinstance(body, dict) and body["state"] == state:
                return body

    def listen(self, seconds: float) -> None:
        """Take what comes."""
        try:
            self._take("nothing", seconds)
        except AssertionError:
            return

    def _take(self, kind: str, deadline_s: float) -> object:
        end = time.monotonic() + deadline_s
        while True:
            try:
                message = self._link.inbox.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} within {deadline_s:g} s") from None
            if message.kind == "push" and isinstance(message.body, dict):
                self.pushes.append(message.body)
            if message.kind == "targets" and message.reply is not None and isinstance(message.body, dict):
                self.targets.append(message.body)
                message.reply.put({"ok": True, "revision": message.body["revision"], "refused": []})
            self.lost = self.lost or message.kind == "lost"
            if message.kind == kind:
                return message.body
