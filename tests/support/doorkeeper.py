"""The server's half of the sealed exchange for servers that tests make: every key and passphrase is let in."""

from __future__ import annotations

from typing import Any

from pingmon_agent.wire import seal
from pingmon_agent.wire.seal import Identity, Outer, Proof

Json = dict[str, Any]
IDENTITY = Identity(bytes([1]) * 32)
PASSPHRASE = f"pm1-gmefpcqh-90g400kg9nytz74aah5pedtrr0-{IDENTITY.pin}"
SIGNED = ("pending", "approved", "hold", "blacklisted")


class Doorkeeper:
    """One connection at a time."""

    def __init__(self) -> None:
        self._offer: seal.Offer | None = None
        self._th1 = b""

    def challenge(self, data: dict[str, str]) -> Json | None:
        """The answer to a first message, None for any other."""
        if not data["passphrase"].startswith(seal.HELLO_TAG):
            return None
        self._offer = seal.offer(IDENTITY, "srv-test", data["passphrase"], 0)
        return self._offer.body

    def open(self, data: dict[str, str]) -> Proof:
        """What came in answer to the challenge; a login is not checked."""
        offer, text = self._offer, data["passphrase"]
        assert offer is not None
        self._offer = None
        read = seal.open_sealed if text.startswith(seal.SEAL_TAG) else seal.read_login
        proof = read(offer, text, Outer(data["hostname"], data["ip_address"], data["version"]))
        self._th1 = proof.th1
        return proof

    def sign(self, body: Any) -> Any:
        """With a signature, where a server signs."""
        known = isinstance(body, dict) and body.get("state") in SIGNED
        return seal.sign_reply(IDENTITY, self._th1, body) if known else body

    def sign_targets(self, body: Any) -> Any:
        """A set whose `sig` is empty with a signature; anything else as the test has it."""
        if not isinstance(body, dict) or body.get("sig") != "":
            return body
        return seal.sign_targets(IDENTITY, {name: value for name, value in body.items() if name != "sig"})
