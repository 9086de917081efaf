"""What reads a stranger's bytes, one judge for each way in, with good examples to begin from.

A judge takes bytes, calls the product as its callers do, and lets pass only what those callers handle; whatever else it
raises would have ended a connection, or worse. Must not know: where the bytes come from.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from engineio.packet import MESSAGE

from pingmon.adapters.lines import CLIENT_PACKETS
from pingmon.adapters.packet import CheckedPacket, Frame, UnreadableError
from pingmon.services.challenge import Gate, Leaf, Visit
from pingmon_agent.delivery import Delivery
from pingmon_agent.ring import Ring
from pingmon_agent.wire import codec, seal
from pingmon_agent.wire.contract import (
    EVENT_DATA,
    EVENT_HANDSHAKE,
    Handshake,
    Report,
    Round,
    Target,
    TargetSet,
    WireError,
)
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.hosts import MAX_REFUSED, decode_refused
from pingmon_agent.wire.legacy import decode_legacy
from pingmon_agent.wire.seal import Identity, Offer, Outer, UntrustedError
from tests.server.conftest import FakeClock

Json = dict[str, Any]
Judge = Callable[[bytes], object]
EPOCH = "00c0ffee00c0ffee"
SERVER, AGENT = Identity(bytes([1]) * 32), Identity(bytes([3]) * 32)
CLIENT_NONCE = bytes([6]) * 16
OUTER = Outer("probe-1", "192.0.2.17", "1.0")
EXT = {"clk": 1, "epoch": EPOCH, "inst": "7b1c0d9e4f5a6b7c", "next": 1, "tls": b64u(bytes(32))}
SECRET = f"pm1-gmefpcqh-90g400kg9nytz74aah5pedtrr0-{SERVER.pin}"


@cache
def gate() -> Gate:
    """The server's half of a handshake, without a database."""
    folder = Path(tempfile.mkdtemp(prefix="pingmon-judge-"))
    (folder / "leaf.pem").write_text(ssl.DER_cert_to_PEM_cert(b"leaf"))
    return Gate(SERVER, Leaf(folder / "leaf.pem"), FakeClock())


@cache
def offer() -> Offer:
    """A challenge that never changes, so that the examples answer it."""
    hello = seal.HELLO_TAG + b64u(CLIENT_NONCE)
    return seal.offer(SERVER, "srv-0001", hello, 1, kex=bytes([2]) * 32, nonce=bytes([5]) * 32)


def hear(data: object) -> object:
    """As `Enrolment.hear`, but for who it is; the challenge has just been given."""
    return gate().hear(Visit("192.0.2.17", offer(), FakeClock().monotonic()), data)


def handshake(data: object) -> None:
    """As the agent socket does with it."""
    with suppress(WireError):
        hear(data)


def report(data: object) -> None:
    """As the agent socket reads `monitoring_data`, of a current agent and of a legacy one."""
    with suppress(WireError):
        codec.decode_report(data)
    with suppress(WireError):
        decode_legacy(data)


def message(data: bytes) -> str:
    """A websocket message, from the moment it is there to the handler's own reading; how far it came."""
    try:
        said: str | bytes = data[1:].decode() if data[:1] == b"t" else data[1:]
    except UnicodeDecodeError:
        return "no text"  # the websocket says so itself
    if isinstance(said, str) and said[:1] not in CLIENT_PACKETS:
        return "no Engine.IO"
    if not said:
        return "no Engine.IO"
    frame = Frame(encoded_packet=said)
    if frame.packet_type != MESSAGE or isinstance(frame.data, bytes):
        return "nothing for Socket.IO"
    try:
        packet = CheckedPacket(encoded_packet=frame.data)
    except UnreadableError as error:
        return str(error)
    if packet.packet_type != 2:
        return f"packet {packet.packet_type}"
    name, argument, wish = packet.data
    assert isinstance(name, str)
    assert isinstance(wish, bool)
    json.dumps(argument)
    {EVENT_HANDSHAKE: handshake, EVENT_DATA: report}.get(name, bool)(argument)
    return name if name in (EVENT_HANDSHAKE, EVENT_DATA) else f"another event, {wish}"


def _json(judge: Callable[[object], object]) -> Judge:
    """The same for data that the packet layer has read; what it would not read is not the judge's business."""

    def judged(data: bytes) -> object:
        try:
            value = CheckedPacket.json.loads(data.decode())
        except (ValueError, RecursionError):
            return "no JSON"
        return judge(value)

    return judged


def _refusal(what: Callable[[object], object], *kinds: type[Exception]) -> Callable[[object], str]:
    def judged(data: object) -> str:
        try:
            what(data)
        except kinds as error:
            return str(error)
        return "taken"

    return judged


def _delivery() -> Delivery:
    ring = Ring(lambda: 1.0)
    ring.append(started_ms=1, revision=1, samples=array("i", [1]), disturbed=False)
    who = Handshake(passphrase="x", hostname="a", ip_address="192.0.2.1", version="1")
    return Delivery(ring, who, lambda _targets: None)


def answers(data: object) -> None:
    """Whatever a server says to an agent: to its handshake, to its report, and as its targets."""
    made = _delivery()
    made.greet()
    with suppress(WireError):
        made.on_handshake(data)
    made.on_targets(data)
    made = _delivery()
    made.greet()
    made.on_handshake({"state": "approved", "agent_id": "a", "upto": 0, "targets_rev": 1})
    sent = made.next_report(0.0)
    assert sent is not None
    made.on_ack(sent.token, data, 0.0)


def challenge(data: object) -> None:
    """What an agent is answered to its first words, and what it does with it. What is no object says no state."""
    if isinstance(data, dict):
        seal.login(seal.check_challenge(data, CLIENT_NONCE, [SERVER.pin]), OUTER, EXT, AGENT)


JUDGES: dict[str, Judge] = {
    "message": message,
    "handshake": _json(
        _refusal(lambda data: gate().hear(Visit("192.0.2.17", offer(), 1_800_000_000.0), data), WireError)
    ),
    "report": _json(_refusal(codec.decode_report, WireError)),
    "legacy": _json(_refusal(decode_legacy, WireError)),
    "refused": _json(_refusal(lambda data: decode_refused(data, MAX_REFUSED), WireError)),
    "answers": _json(answers),
    "challenge": _json(_refusal(challenge, UntrustedError, WireError)),
}


def _hello(passphrase: str) -> Json:
    return {"passphrase": passphrase, "hostname": OUTER.hostname, "ip_address": OUTER.ip_address, "version": "1.0"}


def _report(samples: int) -> Json:
    rows = (Round(epoch=EPOCH, seq=5 + i, started_ms=i, revision=1, samples=array("i", [i] * samples)) for i in (0, 1))
    sent = Report(epoch=EPOCH, rounds=tuple(rows), gap=(1, 4, "expired"), sent_ms=9, refused=((1, "E_POLICY_RATE"),))
    return codec.encode_report(sent)


@cache
def examples() -> list[tuple[str, bytes]]:
    """(judge, bytes) that every judge takes, or refuses late."""
    checked = seal.check_challenge(offer().body, CLIENT_NONCE, [SERVER.pin])
    sealed = seal.seal(checked, OUTER, EXT, AGENT, SECRET, eph=bytes([4]) * 32)[0]
    texts = (seal.HELLO_TAG + b64u(CLIENT_NONCE), sealed, seal.login(checked, OUTER, EXT, AGENT)[0], "plain")
    targets = TargetSet(
        agent_id="a", revision=1, issued_at=1, interval_s=5, targets=(Target(id=1, name="t", address="x"),)
    )
    sample = {"target": "here", "rtt_ms": 1.5, "timestamp": 1_767_225_600.25}
    approved = {"state": "approved", "agent_id": "a", "upto": 1, "targets_rev": 1, "limits": {"rounds": 2}}
    found: list[tuple[str, object]] = [("handshake", _hello(text)) for text in texts]
    found += [("report", _report(3)), ("report", _report(600)), ("legacy", sample), ("legacy", [sample, sample])]
    found += [("refused", [[1, "E_POLICY_RATE"]]), ("challenge", offer().body), ("answers", approved)]
    found += [("answers", codec.encode_targets(targets)), ("answers", {"ok": True, "upto": 1, "dup": 0})]
    found += [
        ("answers", {"ok": False, "code": code, "retry_after_s": 1, "expected": 1}) for code in ("E_SEQ_GAP", "E_RATE")
    ]
    made = [(judge, json.dumps(value).encode()) for judge, value in found]
    events = [("handshake", v) for j, v in found if j == "handshake"] + [
        ("monitoring_data", v) for j, v in found if j in ("report", "legacy")
    ]
    made += [("message", f"t42/agent,{i}{json.dumps(event)}".encode()) for i, event in enumerate(events)]
    others = (
        't40/agent,{"a":1}',
        "t41/agent,",
        't43/agent,1[{"ok":true}]',
        't451-/agent,["x",{"_placeholder":true,"num":0}]',
    )
    return made + [("message", text.encode()) for text in (*others, "t3", "t1", "t2probe", "b\x00\x01", "t4[[[[")]
