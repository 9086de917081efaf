"""THE SEAL: challenge, sealed passphrase, key login, signed replies and target sets (docs/wire.md has the messages).

TLS does the work; this layer makes a passphrase unreadable to whoever ends that TLS, and ties every answer to the keys
of both sides. Ed25519, X25519, HKDF and ChaCha20-Poly1305 as the library has them; only the framing is ours.
Must not know: sockets, clocks, files, which passphrases and keys are good.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .contract import ErrorCode, WireError
from .framing import ALPHABET, b64u, cj, enc, unb64u

Json = dict[str, Any]
HELLO_TAG, SEAL_TAG, KEY_TAG = "pmhello1:", "pmseal1:", "pmkey1:"
PROTOCOLS = (1,)
CHALLENGE_TTL_S = 30
_INNER_BYTES = 512
_ZERO_NONCE = bytes(12)  # right only because a key seals one message
_REPLAY = "shake hands again from the first message on"


class UntrustedError(Exception):
    """The other side is not the server whose pin we hold; nothing secret was said. The text tells why."""


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key, 43 characters: what an administrator approves."""
    return b64u(_hash(public))


def grouped(fpr: str) -> str:
    """The first 16 characters of a fingerprint in groups of four, for two people on the telephone."""
    return " ".join(fpr[at : at + 4] for at in range(0, 16, 4))


def pin(public: bytes) -> str:
    """160 bits of the hash of a server's identity, 32 characters: what an agent knows its server by."""
    number = int.from_bytes(_hash(b"pingmon/1/pin" + public)[:20], "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(155, -1, -5))


# -- keys and messages --


class Identity:
    """An Ed25519 key pair of a server or an agent, from its 32 secret bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.fingerprint, self.pin = fingerprint(self.public), pin(self.public)

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(data)


def _genuine(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class Outer:
    """The three fields that travel in the open, exactly as they travel."""

    hostname: str
    ip_address: str
    version: str


@dataclass(frozen=True)
class Offer:
    """A challenge as the server keeps it: `body` went out, one answer may come back."""

    body: Json
    th0: bytes
    nonce: bytes
    kex: X25519PrivateKey = field(repr=False)


@dataclass(frozen=True)
class Challenge:
    """A challenge as the agent has checked it; `time_ms` is the server's clock."""

    identity: bytes
    kex: bytes
    nonce: bytes
    th0: bytes
    time_ms: int


@dataclass(frozen=True)
class Proof:
    """What an agent said in answer to a challenge. `passphrase` came sealed; a key login has none and `public` is not
    known yet: `check_login` with the key on file. `ext` is not judged here."""

    fingerprint: str
    ext: Mapping[str, Any]
    th1: bytes
    public: bytes = b""
    passphrase: str = field(default="", repr=False)
    signature: bytes = b""


def _transcript(word: str, th0: bytes, who: bytes, outer: Outer, ext: bytes) -> bytes:
    return _hash(enc(f"pingmon/1/{word}", th0, who, outer.hostname, outer.ip_address, outer.version, ext))


def _key(shared: bytes, nonce: bytes, th1: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, nonce, b"pingmon/1/k" + th1).derive(shared))


# -- the server's half --


def offer(server: Identity, server_id: str, hello: str, now_ms: int, *, kex: bytes = b"", nonce: bytes = b"") -> Offer:
    """A fresh challenge for the passphrase field of a hello; raises WireError. `kex`, `nonce`: given by tests only."""
    client_nonce = unb64u(hello.removeprefix(HELLO_TAG), 16)
    private = X25519PrivateKey.from_private_bytes(kex) if kex else X25519PrivateKey.generate()
    public, nonce = private.public_key().public_bytes_raw(), nonce or secrets.token_bytes(32)
    versions = ",".join(map(str, PROTOCOLS))
    t0 = enc("pingmon/1/challenge", versions, server_id, server.public, public, nonce, client_nonce, now_ms)
    body = {"state": "challenge", "proto": list(PROTOCOLS), "server_id": server_id, "time": now_ms}
    body |= {"identity": b64u(server.public), "kex": b64u(public), "nonce": b64u(nonce), "ttl_s": CHALLENGE_TTL_S}
    return Offer(body | {"sig": b64u(server.sign(t0))}, _hash(t0), nonce, private)


def _read_ext(text: str) -> tuple[bytes, Mapping[str, Any]]:
    raw = unb64u(text)
    try:
        ext = json.loads(raw)
        canonical = isinstance(ext, dict) and cj(ext) == raw
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise WireError(ErrorCode.MALFORMED, "the agent's facts are not canonical JSON; upgrade the agent")
    return raw, ext


def _parts(text: str, tag: str) -> list[str]:
    parts = text.removeprefix(tag).split(".")
    if len(parts) != 3:
        raise WireError(ErrorCode.MALFORMED, f"{tag} must be followed by three parts; upgrade the agent")
    return parts


def open_sealed(sent: Offer, text: str, outer: Outer) -> Proof:
    """The passphrase and the key in a `pmseal1:` field, which has proven that it holds that key; raises WireError."""
    one, two, three = _parts(text, SEAL_TAG)
    eph, (raw, ext), sealed = unb64u(one, 32), _read_ext(two), unb64u(three, _INNER_BYTES + 16)
    th1 = _transcript("seal", sent.th0, eph, outer, raw)
    try:
        shared = sent.kex.exchange(X25519PublicKey.from_public_bytes(eph))
        padded = _key(shared, sent.nonce, th1).decrypt(_ZERO_NONCE, sealed, th1)
        inner = json.loads(padded[2 : 2 + int.from_bytes(padded[:2], "big")])
        public, passphrase, signature = unb64u(inner["key"], 32), inner["passphrase"], unb64u(inner["sig"], 64)
    except (InvalidTag, ValueError, KeyError, TypeError, RecursionError):
        raise WireError(ErrorCode.SEAL, f"the sealed passphrase cannot be opened; {_REPLAY}") from None
    if not isinstance(passphrase, str) or not _genuine(public, signature, b"pingmon/1/pop" + th1):
        raise WireError(ErrorCode.SIGNATURE, f"the agent does not hold the key it shows; {_REPLAY}")
    return Proof(fingerprint(public), ext, th1, public, passphrase)


def read_login(sent: Offer, text: str, outer: Outer) -> Proof:
    """Who a `pmkey1:` field claims to be; believe it after `check_login` only. Raises WireError."""
    one, two, three = _parts(text, KEY_TAG)
    who, (raw, ext), signature = unb64u(one, 32), _read_ext(two), unb64u(three, 64)
    return Proof(one, ext, _transcript("key", sent.th0, who, outer, raw), signature=signature)


def check_login(proof: Proof, public: bytes) -> None:
    """Raises WireError unless the login was signed by the private half of `public`."""
    if not _genuine(public, proof.signature, b"pingmon/1/login" + proof.th1):
        raise WireError(ErrorCode.SIGNATURE, f"the agent does not hold the key it shows; {_REPLAY}")


def _reply(th1: bytes, body: Mapping[str, Any]) -> bytes:
    return enc("pingmon/1/reply", th1, cj(body))


def sign_reply(server: Identity, th1: bytes, body: Json) -> Json:
    """`body` with a signature that is good in this handshake only."""
    return body | {"sig": b64u(server.sign(_reply(th1, body)))}


def _targets(body: Mapping[str, Any]) -> bytes:
    rest = {name: value for name, value in body.items() if name not in ("agent_id", "revision", "issued_at", "sig")}
    return enc("pingmon/1/targets", body["agent_id"], body["revision"], body["issued_at"], cj(rest))


def sign_targets(server: Identity, body: Json) -> Json:
    """A target set with a signature over all its fields."""
    return body | {"sig": b64u(server.sign(_targets(body)))}


# -- the agent's half --


def hello() -> tuple[str, bytes]:
    """(passphrase field of the first message, the nonce in it)."""
    nonce = secrets.token_bytes(16)
    return HELLO_TAG + b64u(nonce), nonce


def check_challenge(body: Mapping[str, Any], client_nonce: bytes, pins: Collection[str]) -> Challenge:
    """Pin, then signature, then version; raises UntrustedError, and whoever catches it must not say anything secret."""
    try:
        identity, kex, nonce = (unb64u(body.get(name), 32) for name in ("identity", "kex", "nonce"))
        signature, time_ms, proto = unb64u(body.get("sig"), 64), body["time"], ",".join(map(str, body["proto"]))
        t0 = enc("pingmon/1/challenge", proto, body["server_id"], identity, kex, nonce, client_nonce, time_ms)
    except (WireError, KeyError, TypeError, UnicodeError):
        raise UntrustedError("it sends no readable challenge") from None
    if pin(identity) not in pins:
        raise UntrustedError(f"its identity is {pin(identity)}, not the one this agent was given")
    if not _genuine(identity, signature, t0) or type(time_ms) is not int:
        raise UntrustedError("its challenge is not signed by the identity it shows")
    if not set(PROTOCOLS) & set(body["proto"]):
        raise UntrustedError(f"it speaks protocol {proto}, this agent {PROTOCOLS[0]}; upgrade the older of the two")
    return Challenge(identity, kex, nonce, _hash(t0), time_ms)


def seal(
    challenge: Challenge, outer: Outer, ext: Json, agent: Identity, passphrase: str, *, eph: bytes = b""
) -> tuple[str, bytes]:
    """(passphrase field that only this server can open, transcript hash for its reply). `eph`: given by tests only."""
    raw, private = cj(ext), X25519PrivateKey.from_private_bytes(eph) if eph else X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    th1 = _transcript("seal", challenge.th0, public, outer, raw)
    signature = agent.sign(b"pingmon/1/pop" + th1)
    inner = cj({"key": b64u(agent.public), "passphrase": passphrase, "sig": b64u(signature)})
    padded = (len(inner).to_bytes(2, "big") + inner).ljust(_INNER_BYTES, b"\0")
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(challenge.kex))
    except ValueError:
        raise UntrustedError("its key exchange is a point that hides nothing") from None
    sealed = _key(shared, challenge.nonce, th1).encrypt(_ZERO_NONCE, padded, th1)
    return f"{SEAL_TAG}{b64u(public)}.{b64u(raw)}.{b64u(sealed)}", th1


def login(challenge: Challenge, outer: Outer, ext: Json, agent: Identity) -> tuple[str, bytes]:
    """(passphrase field of an agent whose key the server has, transcript hash for its reply)."""
    raw = cj(ext)
    th1 = _transcript("key", challenge.th0, _hash(agent.public), outer, raw)
    return f"{KEY_TAG}{agent.fingerprint}.{b64u(raw)}.{b64u(agent.sign(b'pingmon/1/login' + th1))}", th1


def check_reply(identity: bytes, transcripts: Collection[bytes], body: Mapping[str, Any]) -> None:
    """Raises UntrustedError unless this server said `body` in one of these handshakes."""
    said = {name: value for name, value in body.items() if name != "sig"}
    if not any(_signed(identity, body, partial(_reply, th1, said)) for th1 in transcripts):
        raise UntrustedError("its answer is not signed by its identity")


def check_targets(identity: bytes, body: Mapping[str, Any]) -> None:
    """Raises UntrustedError unless this server made this target set."""
    if not _signed(identity, body, partial(_targets, body)):
        raise UntrustedError("its target set is not signed by its identity")


def _signed(identity: bytes, body: Mapping[str, Any], data: Callable[[], bytes]) -> bool:
    try:
        return _genuine(identity, unb64u(body.get("sig"), 64), data())
    except (WireError, KeyError, ValueError, TypeError):
        return False
