"""The sealed exchange: the published vectors, every way to cheat we know, and what chance comes up with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from pingmon_agent.wire import seal
from pingmon_agent.wire.contract import ErrorCode, WireError
from pingmon_agent.wire.framing import PASSPHRASE, b64u, cj, enc, unb64u
from pingmon_agent.wire.seal import Challenge, Identity, Offer, Outer, UntrustedError

SERVER, AGENT = Identity(bytes([1]) * 32), Identity(bytes([3]) * 32)
NOW_MS = 1_767_225_600_000
OUTER = Outer("probe-fra-1.example.net", "192.0.2.17", "1.0.0")
LEAF = b64u(hashlib.sha256(b"example leaf certificate DER").digest())
EXT = {"clk": NOW_MS, "epoch": "00c0ffee00c0ffee", "inst": "7b1c0d9e4f5a6b7c", "next": 1, "tls": LEAF}
SECRET = f"pm1-gmefpcqh-90g400kg9nytz74aah5pedtrr0-{SERVER.pin}"
CLIENT_NONCE = bytes([6]) * 16
PENDING = {
    "key_fpr": AGENT.fingerprint,
    "registration_id": "AAAAAAAAAAAA",
    "retry_after_s": 60,
    "state": "pending",
    "time": NOW_MS,
}
TARGETS = {
    "agent_id": "a",
    "revision": 3,
    "issued_at": NOW_MS,
    "interval_s": 5,
    "targets": [{"id": 1, "name": "one", "address": "192.0.2.80"}],
}


@dataclass
class Both:
    """Both sides of one exchange, with the keys of the vectors."""

    offer: Offer = field(
        default_factory=lambda: seal.offer(
            SERVER, "srv-0001", seal.HELLO_TAG + b64u(CLIENT_NONCE), NOW_MS, kex=bytes([2]) * 32, nonce=bytes([5]) * 32
        )
    )

    @property
    def challenge(self) -> Challenge:
        """As the agent has checked it."""
        return seal.check_challenge(json.loads(json.dumps(self.offer.body)), CLIENT_NONCE, [SERVER.pin])

    def sealed(self, **changes: Any) -> tuple[str, bytes]:
        """M2a."""
        said = {"ext": EXT, "agent": AGENT, "passphrase": SECRET, "eph": bytes([4]) * 32} | changes
        return seal.seal(self.challenge, OUTER, **said)

    def login(self, ext: dict[str, Any] = EXT, agent: Identity = AGENT) -> tuple[str, bytes]:
        """M2b."""
        return seal.login(self.challenge, OUTER, ext, agent)


def code_of(what: Any, *args: Any) -> ErrorCode:
    """The code of a refusal that must come."""
    with pytest.raises(WireError) as caught:
        what(*args)
    return caught.value.code


def check_key(offer: Offer, text: str, outer: Outer, public: bytes = AGENT.public) -> None:
    """The whole of the server's check of a key login."""
    seal.check_login(seal.read_login(offer, text, outer), public)


# -- vectors --


def test_vectors_of_the_challenge() -> None:
    """Identity, pin, transcript and signature are those of the specification."""
    body = Both().offer.body

    assert SERVER.public.hex() == "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    assert SERVER.pin == "kp6wthn16r44sewwnarvhx5sqp96b56q"
    assert Both().offer.th0.hex() == "03cf0b055d8511d4d614353dd0efb4f4435310dbf388faa00088f6829b04280b"
    assert unb64u(body["sig"]).hex() == (
        "bf876a96f29a841d54a9ad50c441e0375ffce23e81130e4f61db2cdedbf0a17e"
        "96e5542971cef43e2afce77df2c3765bdaeebcf82e2766a1709fc43560528301"
    )
    assert len(json.dumps(body, separators=(",", ":"))) == 346


def test_vectors_of_the_sealed_passphrase() -> None:
    """Facts, transcript, key and ciphertext; the sealed JSON is 236 bytes and its length does not show."""
    text, th1 = Both().sealed()
    eph, ext, sealed = text.removeprefix("pmseal1:").split(".")
    later = Both().sealed(ext=EXT | {"next": 18234})[0]
    said = {"passphrase": later, **dataclasses.asdict(OUTER)}

    assert unb64u(ext).decode() == (
        '{"clk":1767225600000,"epoch":"00c0ffee00c0ffee","inst":"7b1c0d9e4f5a6b7c","next":1,'
        '"tls":"TwRNgveGB8BFlJe4p5Tg3-lUlxjTVah8DC4M-ELI9pY"}'
    )
    assert th1.hex() == "8f93ed4cd9d600efc1769fac6f3bf0350dd94a3c681bcf82370ca22c18445cde"
    assert hashlib.sha256(unb64u(sealed)).hexdigest() == (
        "14ec5a173e6836bb06c79279adf5959e8e478f3a3de3be9b9b0a513c34cc0c43"
    )
    assert len(unb64u(sealed)) == 528
    assert len(unb64u(eph)) == 32
    assert (len(later), len(json.dumps(said, separators=(",", ":")))) == (943, 1041)


def test_vectors_of_the_key_login() -> None:
    """Fingerprint, transcript, signature."""
    text, th1 = Both().login()

    assert AGENT.fingerprint == "ti6Gf6LzOv5i1daxZC4WIdVDMHhGsqV7iX5xCRm3Zwk"
    assert th1.hex() == "e6dc5268e264fcec11e5754e8f75f5b232d5a112b98d5f1d885c1078d93e80b7"
    assert unb64u(text.split(".")[2]).hex() == (
        "8cc05bee3ef1f558e84331181bdf63e1aa91ec6a8db15fc8ee52d2a8150e7790"
        "7c11fcaaf8a705b45ee37cf3ff3b749e0ac095689fdb6aac1de988e0122ca00b"
    )


def test_vectors_of_the_reply() -> None:
    """The signature under a pending reply."""
    th1 = Both().sealed()[1]

    assert unb64u(seal.sign_reply(SERVER, th1, PENDING)["sig"]).hex() == (
        "d665db84b07ed5ba78d9e9fd1c76b84ea8e9d5ec1976b079ce9828aca1b55563"
        "505291fbfb6d7d358c94a1c5f426d0da615d9e802738fba569e0fc8d39d6e00b"
    )


def test_the_passphrase_is_72_characters_and_brings_the_pin() -> None:
    """One copied string holds the secret and how to know the server."""
    found = PASSPHRASE.fullmatch(SECRET)

    assert len(SECRET) == 72
    assert found is not None
    assert found[3] == SERVER.pin
    assert seal.grouped(AGENT.fingerprint) == "ti6G f6Lz Ov5i 1dax"


def test_both_forms_are_understood() -> None:
    """What the agent said is what the server reads; the reply and the target set are believed."""
    both = Both()
    (text, th1), (key_text, key_th1) = both.sealed(), both.login()
    proof, claim = seal.open_sealed(both.offer, text, OUTER), seal.read_login(both.offer, key_text, OUTER)
    seal.check_login(claim, AGENT.public)

    assert (proof.public, proof.passphrase, proof.ext, proof.th1) == (AGENT.public, SECRET, EXT, th1)
    assert (claim.fingerprint, claim.th1) == (proof.fingerprint, key_th1)
    seal.check_reply(SERVER.public, [th1], seal.sign_reply(SERVER, th1, PENDING))
    seal.check_targets(SERVER.public, seal.sign_targets(SERVER, TARGETS))
    assert SECRET not in repr(proof)


# -- the 21 negative cases of the specification --


def test_01_02_a_replay_with_the_same_or_another_nonce_opens_nothing() -> None:
    """Every challenge has a key of its own, so what was sealed for one opens under no other."""
    text, key_text = Both().sealed()[0], Both().login()[0]
    same = seal.offer(SERVER, "srv-0001", seal.HELLO_TAG + b64u(CLIENT_NONCE), NOW_MS, nonce=bytes([5]) * 32)
    other = seal.offer(SERVER, "srv-0001", seal.HELLO_TAG + b64u(secrets.token_bytes(16)), NOW_MS)

    for again in (same, other):
        assert code_of(seal.open_sealed, again, text, OUTER) is ErrorCode.SEAL
        assert code_of(check_key, again, key_text, OUTER) is ErrorCode.SIGNATURE


@pytest.mark.parametrize("name", ["hostname", "ip_address", "version"])
def test_03_to_08_an_outer_field_altered_in_either_form(name: str) -> None:
    """What travels in the open is tied to what is sealed or signed."""
    both, altered = Both(), dataclasses.replace(OUTER, **{name: "192.0.2.18"})

    assert code_of(seal.open_sealed, both.offer, both.sealed()[0], altered) is ErrorCode.SEAL
    assert code_of(check_key, both.offer, both.login()[0], altered) is ErrorCode.SIGNATURE


def test_09_ext_altered() -> None:
    """So are the agent's facts."""
    both = Both()
    for text, judge, code in (
        (both.sealed()[0], seal.open_sealed, ErrorCode.SEAL),
        (both.login()[0], check_key, ErrorCode.SIGNATURE),
    ):
        first, _, last = text.split(".")
        forged = f"{first}.{b64u(cj(EXT | {'next': 2}))}.{last}"
        assert code_of(judge, both.offer, forged, OUTER) is code


def test_10_another_tls_leaf_shows() -> None:
    """The leaf that the agent saw arrives unaltered, for the server to compare with its own."""
    both = Both()
    other = b64u(hashlib.sha256(b"leaf of somebody in the middle").digest())

    assert seal.open_sealed(both.offer, both.sealed(ext=EXT | {"tls": other})[0], OUTER).ext["tls"] == other


def test_11_a_wrong_secret_arrives_as_it_is() -> None:
    """Sealing hides a secret, it does not judge it: the server compares (tests/abuse)."""
    both = Both()

    assert seal.open_sealed(both.offer, both.sealed(passphrase="pm1-wrong")[0], OUTER).passphrase == "pm1-wrong"


def test_12_a_rogue_server_is_not_believed() -> None:
    """Its own identity does not fit the pin, and ours it cannot sign with."""
    rogue = Identity(secrets.token_bytes(32))
    theirs = seal.offer(rogue, "srv-0001", seal.HELLO_TAG + b64u(CLIENT_NONCE), NOW_MS).body
    with pytest.raises(UntrustedError, match="not the one this agent was given"):
        seal.check_challenge(theirs, CLIENT_NONCE, [SERVER.pin])
    with pytest.raises(UntrustedError, match="not signed"):
        seal.check_challenge(theirs | {"identity": b64u(SERVER.public)}, CLIENT_NONCE, [SERVER.pin])


@pytest.mark.parametrize(
    "change",
    [
        {"kex": b64u(secrets.token_bytes(32))},  # 13
        {"time": NOW_MS + 1},  # 14
        {"nonce": b64u(secrets.token_bytes(32))},
        {"server_id": "srv-0002"},
        {"proto": [1, 2]},
        {"proto": []},
    ],
)
def test_13_14_anything_in_the_challenge_altered(change: dict[str, Any]) -> None:
    """A swapped key exchange, another time, a stripped or longer list of versions."""
    with pytest.raises(UntrustedError, match="not signed"):
        seal.check_challenge(Both().offer.body | change, CLIENT_NONCE, [SERVER.pin])


def test_the_challenge_of_somebody_elses_hello_is_not_believed() -> None:
    """A recorded challenge does not fit a fresh nonce."""
    with pytest.raises(UntrustedError, match="not signed"):
        seal.check_challenge(Both().offer.body, secrets.token_bytes(16), [SERVER.pin])


def test_the_order_is_pin_signature_version() -> None:
    """An honest server without a common version is told apart from a forged list."""
    t0 = enc("pingmon/1/challenge", "2", "s", SERVER.public, bytes(32), bytes(32), CLIENT_NONCE, NOW_MS)
    body = Both().offer.body | {"proto": [2], "server_id": "s", "kex": b64u(bytes(32)), "nonce": b64u(bytes(32))}
    signed = body | {"sig": b64u(SERVER.sign(t0))}

    with pytest.raises(UntrustedError, match="speaks protocol 2"):
        seal.check_challenge(signed, CLIENT_NONCE, [SERVER.pin])
    with pytest.raises(UntrustedError, match="not the one"):
        seal.check_challenge(body, CLIENT_NONCE, ["0" * 32])
    with pytest.raises(UntrustedError, match="not signed"):
        seal.check_challenge(body, CLIENT_NONCE, [SERVER.pin])


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_15_a_low_order_point_hides_nothing(point: bytes) -> None:
    """Both sides refuse a key exchange whose result everybody knows."""
    both = Both()
    _, ext, sealed = both.sealed()[0].removeprefix("pmseal1:").split(".")

    assert code_of(seal.open_sealed, both.offer, f"pmseal1:{b64u(point)}.{ext}.{sealed}", OUTER) is ErrorCode.SEAL
    with pytest.raises(UntrustedError, match="hides nothing"):
        seal.seal(dataclasses.replace(both.challenge, kex=point), OUTER, EXT, AGENT, SECRET)


def test_16_17_a_key_without_its_private_half_proves_nothing() -> None:
    """Showing somebody's public key is not being somebody, in either form (the shape of Salt CVE-2024-38825)."""

    class Thief(Identity):
        def __init__(self) -> None:
            super().__init__(secrets.token_bytes(32))
            self.public, self.fingerprint = AGENT.public, AGENT.fingerprint

    both = Both()

    assert code_of(check_key, both.offer, both.login(agent=Thief())[0], OUTER) is ErrorCode.SIGNATURE
    assert code_of(seal.open_sealed, both.offer, both.sealed(agent=Thief())[0], OUTER) is ErrorCode.SIGNATURE


def test_18_an_altered_reply_is_not_believed() -> None:
    """Whoever ends the TLS cannot make `pending` into `approved`, nor use the reply of another handshake."""
    th1 = Both().sealed()[1]
    signed = seal.sign_reply(SERVER, th1, PENDING)

    for said, transcript in (
        (signed | {"state": "approved"}, th1),
        (signed | {"more": 1}, th1),
        ({k: v for k, v in signed.items() if k != "sig"}, th1),
        (signed, secrets.token_bytes(32)),
    ):
        with pytest.raises(UntrustedError, match="answer is not signed"):
            seal.check_reply(SERVER.public, [transcript], said)


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "b"},
        {"revision": 4},
        {"issued_at": 0},
        {"interval_s": 1},
        {"targets": []},
        {"more": 1},
        {"sig": ""},
        {"revision": None},
    ],
)
def test_an_altered_target_set_is_not_believed(change: dict[str, Any]) -> None:
    """The signature covers every field."""
    with pytest.raises(UntrustedError, match="target set is not signed"):
        seal.check_targets(SERVER.public, seal.sign_targets(SERVER, TARGETS) | change)


# 19 legacy, 20 no hello, 21 uses spent: what the server decides, in tests/abuse/test_enrolment.py


# -- spelling --


@pytest.mark.parametrize(
    "text", ["", "AA==", "AB", "A", "AA ", "+/+/", "ÄÄ", None, 7, b64u(bytes(31)), b64u(bytes(33))]
)
def test_base64_is_canonical_or_nothing(text: object) -> None:
    """Padding, stray bits, another alphabet, another type or length."""
    assert code_of(unb64u, text, 32) is ErrorCode.MALFORMED


@pytest.mark.parametrize("ext", [b'{"b":1,"a":2}', b'{"a": 1}', b"[]", b"nonsense", b'{"a":1,"a":1}', b"[" * 20_000])
def test_facts_are_canonical_json_or_nothing(ext: bytes) -> None:
    """Two spellings of the same facts would be two transcripts."""
    both = Both()
    first, _, last = both.login()[0].split(".")

    assert code_of(seal.read_login, both.offer, f"{first}.{b64u(ext)}.{last}", OUTER) is ErrorCode.MALFORMED


@given(st.lists(st.binary(max_size=8), max_size=5), st.lists(st.binary(max_size=8), max_size=5))
def test_no_two_lists_of_parts_read_alike(one: list[bytes], other: list[bytes]) -> None:
    """The framing is injective."""
    assert (enc(*one) == enc(*other)) == (one == other)


@given(st.binary(min_size=1, max_size=80))
def test_base64_comes_back(data: bytes) -> None:
    """And every altered spelling is another value or none."""
    assert unb64u(b64u(data), len(data)) == data


@given(st.text(max_size=200), st.sampled_from([seal.open_sealed, seal.read_login]))
def test_nonsense_is_refused_with_a_code(text: str, judge: Any) -> None:
    """Whatever stands in the field, it is a WireError and nothing else."""
    assert code_of(judge, Both().offer, text, OUTER) in ErrorCode


@given(st.data())
def test_any_byte_altered_is_noticed(data: st.DataObject) -> None:
    """One character of a sealed or signed field changed to another: never accepted as it was."""
    both = Both()
    text, judge = data.draw(st.sampled_from([(both.sealed()[0], seal.open_sealed), (both.login()[0], check_key)]))
    start = text.index(":") + 1
    at = data.draw(st.integers(start, len(text) - 1))
    new = data.draw(st.sampled_from("AZaz09-_.").filter(lambda c: c != text[at]))

    assert code_of(judge, both.offer, text[:at] + new + text[at + 1 :], OUTER) in (
        ErrorCode.MALFORMED,
        ErrorCode.SEAL,
        ErrorCode.SIGNATURE,
    )


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers())))
def test_a_challenge_of_nonsense_is_not_believed(change: dict[str, Any]) -> None:
    """Missing, foreign and wrongly typed fields."""
    body = {name: value for name, value in Both().offer.body.items() if name not in change}
    with pytest.raises(UntrustedError):
        seal.check_challenge({"sig": ""} | change | {n: v for n, v in body.items() if n != "sig"}, CLIENT_NONCE, [""])


def test_the_library_agrees_that_signatures_are_ed25519() -> None:
    """What we call a signature is one by the library's own word, and not for another text."""
    key = Ed25519PublicKey.from_public_bytes(AGENT.public)
    key.verify(AGENT.sign(b"text"), b"text")
    with pytest.raises(InvalidSignature):
        key.verify(AGENT.sign(b"text"), b"other")
