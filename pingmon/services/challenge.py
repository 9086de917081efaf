"""The first half of every handshake: challenges, what comes back, and whether the line ends where it should.

A challenge has a key of its own, belongs to one connection, is good once and for 30 s. Must not know: which passphrases
and keys are good, the database, sockets.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pingmon_agent.wire import codec, seal
from pingmon_agent.wire.contract import ErrorCode, Handshake, WireError
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.keyfile import KeyFileError, identity_file
from pingmon_agent.wire.seal import CHALLENGE_TTL_S, Identity, Offer, Outer, Proof

from .clock import Clock
from .passphrases import PepperError

Json = dict[str, Any]
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_INST = re.compile(r"[0-9a-f]{16}")
_KEPT_LEAVES = 4  # those before stay good: what is on file may not be what is served yet
NO_CHALLENGE = "this answers no challenge of this connection, or too late; shake hands again from the first message on"


@dataclass
class Visit:
    """What is remembered of one connection; `th1` signs what is said to an agent with a key."""

    observed_ip: str
    offer: Offer | None = None
    offered_at: float = 0.0
    th1: bytes | None = None


@dataclass(frozen=True)
class Said:
    """A handshake with a meaning: of a legacy agent without `proof`. `inst` is the agent's process, `tls` the SHA-256
    of the certificate it saw, base64url."""

    hello: Handshake
    proof: Proof | None = None
    inst: str = ""
    tls: str = field(default="", repr=False)


def server_identity(path: Path) -> Identity:
    """The server's Ed25519 key in a file of its own, made at first use. Raises PepperError."""
    try:
        return identity_file(path, "give every agent the new pin")
    except KeyFileError as error:
        raise PepperError(str(error)) from error


class Leaf:
    """The certificate that this server shows: the file is looked at again whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, (0, 0)
        self._known: list[str] = []

    def is_ours(self, digest: str) -> bool:
        """Whether an agent that saw this SHA-256 (base64url) saw our certificate, or one of the last before it."""
        stat = self._path.stat()
        if (stat.st_mtime_ns, stat.st_ino) != self._stamp:
            self._stamp = (stat.st_mtime_ns, stat.st_ino)
            first = _PEM.search(self._path.read_text())
            if first is not None:
                found = b64u(hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).digest())
                self._known = [*(k for k in self._known if k != found), found][-_KEPT_LEAVES:]
        return digest in self._known


class Gate:
    """Challenges handed out and taken back."""

    def __init__(self, identity: Identity, leaf: Leaf, clock: Clock) -> None:
        self.identity, self._leaf, self._clock = identity, leaf, clock
        self.server_id = f"srv-{identity.pin[:8]}"

    def hear(self, visit: Visit, data: object) -> Json | Said:
        """A challenge to send back, or what the agent said; raises WireError."""
        hello = codec.decode_handshake(data)
        text = hello.passphrase
        if text.startswith(seal.HELLO_TAG):
            visit.offer = seal.offer(self.identity, self.server_id, text, self._clock.wall_ms())
            visit.offered_at = self._clock.monotonic()
            return visit.offer.body
        if not text.startswith((seal.SEAL_TAG, seal.KEY_TAG)):
            return Said(hello)
        sent, visit.offer = visit.offer, None
        if sent is None or self._clock.monotonic() - visit.offered_at > CHALLENGE_TTL_S:
            raise WireError(ErrorCode.NONCE, NO_CHALLENGE)
        read = seal.open_sealed if text.startswith(seal.SEAL_TAG) else seal.read_login
        return _understand(hello, read(sent, text, _outer(data)))

    def check_channel(self, said: Said) -> None:
        """Raises WireError where the agent's TLS ends somewhere else than here."""
        if not self._leaf.is_ours(said.tls):
            raise WireError(
                ErrorCode.CHANNEL,
                f"{said.hello.hostname} saw another TLS certificate than this server shows: somebody stands in "
                "between, or a proxy ends TLS; connect the agent to the server itself",
            )

    def sign(self, th1: bytes | None, body: Json) -> Json:
        """A reply as it is sent: signed for an agent with a key."""
        return body if th1 is None else seal.sign_reply(self.identity, th1, body)

    def sign_targets(self, th1: bytes | None, body: Json) -> Json:
        """A target set as it is sent."""
        return body | {"sig": ""} if th1 is None else seal.sign_targets(self.identity, body)


def _outer(data: object) -> Outer:
    """The fields as they travelled; reading them has canonical forms in the place of some."""
    assert isinstance(data, Mapping)  # noqa: S101 - decoded before
    return Outer(data["hostname"], data["ip_address"], data["version"])


def _understand(hello: Handshake, proof: Proof) -> Said:
    ext = proof.ext
    clock, following, words = ext.get("clk"), ext.get("next"), (ext.get("epoch"), ext.get("inst"), ext.get("tls"))
    numbers = type(clock) is int and 0 <= clock < 2**53 and type(following) is int and 1 <= following < 2**53
    epoch, inst, tls = (word if isinstance(word, str) else "" for word in words)
    if not numbers or _INST.fullmatch(inst) is None:
        raise WireError(ErrorCode.MALFORMED, "the agent's facts lack clk, epoch, inst, next or tls; upgrade the agent")
    facts = asdict(hello) | {"epoch": epoch, "next_seq": following, "sent_ms": clock or None}
    return Said(Handshake(**facts), proof, inst, tls)
