"""The agent's side of the sealed exchange: what leaves is sealed or signed, what comes is believed only if signed.

Stands between the connection and delivery.py, which sees verified messages only. No socket, no file: keep.py has those.
Must not know: reports, when to come back.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from .keep import Keep
from .wire import seal
from .wire.contract import ErrorCode, Handshake, State
from .wire.framing import b64u
from .wire.seal import Challenge, Outer, UntrustedError

Json = dict[str, Any]
_SIGNED = {State.PENDING, State.APPROVED, State.HOLD, State.BLACKLISTED}
CHALLENGE = "challenge"


class Door:
    """One agent's door; `opened`, `greet`, `prove`, `check` in this order for each connection."""

    def __init__(self, keep: Keep, wall_ms: Callable[[], int | None] = lambda: None) -> None:
        self.keep, self._wall_ms = keep, wall_ms
        self._inst = secrets.token_hex(8)  # this process: a second one with the same key is a clone
        self._leaf = ""
        self._message: Handshake | None = None
        self._nonce = b""
        self._challenge: Challenge | None = None
        self._transcripts: list[bytes] = []  # of this connection: a push may cross a second handshake
        self._by_passphrase = False
        self.clock_offset_ms = 0  # the server's clock less ours, at the last challenge

    def opened(self, leaf: bytes) -> None:
        """A new connection, whose TLS showed this certificate (DER)."""
        self._leaf = b64u(hashlib.sha256(leaf).digest())
        self._challenge, self._transcripts = None, []
        self._by_passphrase = bool(self.keep.passphrase) and not self.keep.known

    def greet(self, message: Handshake) -> Json:
        """The first message: who is there, and a nonce for the challenge."""
        self._message = message
        return self._hello(message)

    def _hello(self, message: Handshake) -> Json:
        text, self._nonce = seal.hello()
        return _fields(text, message)

    def again(self, body: object) -> Json | None:
        """The first message once more, where the server does not know this key (any more) and there is a passphrase."""
        unknown = isinstance(body, Mapping) and body.get("code") == ErrorCode.UNKNOWN_KEY
        if not unknown or self._by_passphrase or not self.keep.passphrase or self._message is None:
            return None
        self._by_passphrase = True
        return self._hello(self._message)

    def prove(self, body: Mapping[str, Any]) -> Json:
        """The answer to a challenge, with the passphrase sealed for this server or signed by the key it knows.

        Raises UntrustedError; then nothing secret has been said and must not be.
        """
        nonce, self._nonce = self._nonce, b""
        if not nonce or self._message is None:
            raise UntrustedError("it sends a challenge that nobody asked for")
        challenge = self._challenge = seal.check_challenge(body, nonce, [self.keep.pin])
        message, now = self._message, self._wall_ms()
        self.clock_offset_ms = 0 if now is None else challenge.time_ms - now
        ext = {"clk": now or 0, "epoch": message.epoch, "inst": self._inst, "next": message.next_seq, "tls": self._leaf}
        outer, identity = Outer(message.hostname, message.ip_address, message.version), self.keep.identity
        if self._by_passphrase:
            text, th1 = seal.seal(challenge, outer, ext, identity, self.keep.passphrase)
        else:
            text, th1 = seal.login(challenge, outer, ext, identity)
        self._transcripts = [*self._transcripts[-1:], th1]
        return _fields(text, message)

    def check(self, body: object) -> None:
        """Raises UntrustedError where a word about this agent does not come from its server.

        Errors are not signed: they change nothing but when to come back.
        """
        if not isinstance(body, Mapping) or body.get("state") not in _SIGNED:
            return
        if self._challenge is None:
            raise UntrustedError("it answers without having proven who it is")
        seal.check_reply(self._challenge.identity, self._transcripts, body)
        self.keep.met()
        if body["state"] == State.APPROVED:
            self.keep.approved()

    def check_targets(self, body: object) -> None:
        """Raises UntrustedError where a target set does not come from this agent's server."""
        if self._challenge is None or not isinstance(body, Mapping):
            raise UntrustedError("it sends targets without having proven who it is")
        seal.check_targets(self._challenge.identity, body)


def _fields(text: str, message: Handshake) -> Json:
    fields = asdict(message)
    return {"passphrase": text} | {name: fields[name] for name in ("hostname", "ip_address", "version")}
