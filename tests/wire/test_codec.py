"""The wire contract: what may be said, and what is refused with which code."""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import (
    MAX_MESSAGE_BYTES,
    MAX_TARGETS,
    PLAIN_TAG,
    ErrorCode,
    Handshake,
    Outcome,
    Report,
    Round,
    Target,
    TargetSet,
    WireError,
    status_of,
)

EPOCH = "00c0ffee00c0ffee"
HELLO = {"passphrase": "secret", "hostname": "probe-1", "ip_address": "192.0.2.17", "version": "1.0"}


def wire(message: Any) -> Any:
    """A payload as the other side gets it."""
    return json.loads(json.dumps(message))


def test_legacy_handshake_is_the_four_original_fields() -> None:
    """A client of the original contract is understood and marked as legacy."""
    hello = codec.decode_handshake(HELLO)

    assert hello.legacy
    assert codec.encode_handshake(hello) == HELLO


def test_current_handshake_keeps_the_four_fields() -> None:
    """Epoch and sequence ride inside the passphrase field, so no field is added."""
    hello = Handshake(**HELLO, epoch=EPOCH, next_seq=7)
    payload = wire(codec.encode_handshake(hello))

    assert set(payload) == set(HELLO)
    assert codec.decode_handshake(payload) == hello


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"hostname": "<script>"}, ErrorCode.HOSTNAME),
        ({"hostname": "a" * 254}, ErrorCode.HOSTNAME),
        ({"hostname": "../../etc"}, ErrorCode.HOSTNAME),
        ({"ip_address": "300.1.1.1"}, ErrorCode.IP),
        ({"ip_address": "fe80::1%eth0"}, ErrorCode.IP),
        ({"version": ""}, ErrorCode.VERSION),
        ({"version": "1\n2"}, ErrorCode.VERSION),
        ({"passphrase": ""}, ErrorCode.PASSPHRASE),
        ({"passphrase": None}, ErrorCode.MALFORMED),
        ({"passphrase": "pmplain1:%%%.x"}, ErrorCode.MALFORMED),
        ({"hostname": 5}, ErrorCode.MALFORMED),
    ],
)
def test_bad_handshake_names_its_fault(change: dict[str, Any], code: ErrorCode) -> None:
    """Each field has its own error code."""
    with pytest.raises(WireError) as caught:
        codec.decode_handshake({**HELLO, **change})

    assert caught.value.code == code


def test_mapped_address_is_folded() -> None:
    """An IPv4 address in IPv6 clothes is the same address."""
    assert codec.decode_handshake({**HELLO, "ip_address": "::ffff:192.0.2.17"}).ip_address == "192.0.2.17"


values = st.integers(int(min(Outcome)), 60_000_000)
samples = st.lists(values, max_size=50) | st.builds(lambda v, n: [v, 0, -1] * n, values, st.integers(171, 300))


@given(st.lists(samples, min_size=1, max_size=5), st.booleans())
def test_reports_come_back_as_they_were(columns: list[list[int]], disturbed: bool) -> None:
    """Encoding and decoding change no value."""
    report = Report(
        epoch=EPOCH,
        rounds=tuple(
            Round(epoch=EPOCH, seq=i + 1, started_ms=i, revision=3, samples=array("i", c), disturbed=disturbed)
            for i, c in enumerate(columns)
        ),
        gap=(1, 2, "ttl"),
        refused=((17, "E_POLICY_LOOPBACK"),) if disturbed else None,
    )

    assert codec.decode_report(wire(codec.encode_report(report))) == report


@pytest.mark.parametrize(
    "refused",
    [None, {}, [1], [[1]], [[1, 2]], [["1", "E_POLICY_X"]], [[True, "E_POLICY_X"]], [[-1, "E_POLICY_X"]],
     [[1, "E_TARGET"]], [[1, "E_POLICY_<b>"]], [[1, "E_POLICY_X\n"]], [[1, "E_POLICY_" + "X" * 31]],
     [[1, "E_POLICY_X"]] * 21],
)  # fmt: skip
def test_refusals_are_read_strictly(refused: object) -> None:
    """They end up on pages: pairs of an id and a code, few of them, or the report is malformed."""
    body = codec.encode_report(Report(epoch=EPOCH, rounds=(Round(epoch=EPOCH, seq=1, started_ms=1, revision=1,
                                                                samples=array("i", [1])),)))  # fmt: skip
    with pytest.raises(WireError):
        codec.decode_report(wire(body | {"refused": refused}))


@pytest.mark.parametrize("value", [True, 1.5, None, "1", -8, 60_000_001, 2**63, float("nan")])
def test_no_foreign_value_enters_a_column(value: object) -> None:
    """Only whole microseconds and known codes are samples."""
    with pytest.raises(WireError):
        codec.decode_column([1, value, 2])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (5, "rtt32 must be text in base64"),
        ("x", "rtt32 is not base64"),
        ("AAAA*AAA", "rtt32 is not base64"),
        ("AAAA", "rtt32 must hold 4 bytes per target"),
        ("+P///w==", "rtt must lie between -7 and 60000000"),
        ("AIeTAw==", ""),
        ("AYeTAw==", "rtt must lie between -7 and 60000000"),
    ],
)
def test_packed_columns_are_checked_like_lists(text: object, sentence: str) -> None:
    """The packed form lets nothing in that the list would refuse."""
    if not sentence:
        assert codec.decode_packed(text).tolist() == [60_000_000]
        return
    with pytest.raises(WireError) as caught:
        codec.decode_packed(text)

    assert caught.value.message == sentence


def test_the_largest_round_fits_one_message() -> None:
    """12,000 targets with the longest round-trip times stay below the message limit, and `round_size` knows it."""
    column = array("i", [60_000_000]) * MAX_TARGETS
    row = Round(epoch=EPOCH, seq=2**53 - 1, started_ms=2**43, revision=2**31, samples=column, disturbed=True)
    text = json.dumps(codec.encode_report(Report(epoch=EPOCH, rounds=(row,), gap=(1, 2**53 - 2, "x" * 32))))

    assert len(text) < codec.round_size(column) + 200 < MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"epoch": "xyz"},
        {"rounds": []},
        {"rounds": [{"seq": 0, "t": 1, "rev": 1, "rtt": []}]},
        {"rounds": [{"seq": 2, "t": 1, "rev": 1, "rtt": []}, {"seq": 2, "t": 1, "rev": 1, "rtt": []}]},
        {"rounds": [{"seq": 1, "t": 1, "rev": 1, "rtt": [1] * 12001}]},
        {"gap": [5, 4, "ttl"]},
    ],
)
def test_bad_reports_are_refused(change: dict[str, Any]) -> None:
    """A report is taken whole or not at all."""
    good: dict[str, Any] = {"v": 1, "epoch": EPOCH, "rounds": [{"seq": 1, "t": 1, "rev": 1, "rtt": [1]}]}
    codec.decode_report(good)

    with pytest.raises(WireError):
        codec.decode_report({**good, **change})


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_garbage_is_refused_not_raised(garbage: object) -> None:
    """Whatever arrives, the only exception is WireError."""
    for decode in (codec.decode_report, codec.decode_handshake, codec.decode_targets):
        with pytest.raises(WireError):
            decode(garbage)


NEAR = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        -8,
        60_000_001,
        1.0,
        2**53,
        2**63,
        "1",
        "",
        "\x00",
        EPOCH,
        [],
        {},
        [1],
        "AAAA",
        [1, 2, "ttl"],
    ]
)
REPORT = {
    "v": 1, "epoch": EPOCH, "gap": [1, 4, "expired"], "sent": 9, "refused": [[1, "E_POLICY_RATE"]],
    "rounds": [{"seq": 5, "t": 1, "rev": 1, "rtt": [1, -7]}, {"seq": 6, "t": 2, "rev": 1, "rtt32": "AAAAAA=="}],
}  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in a message."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@st.composite
def nearly(draw: st.DrawFn, good: Any) -> Any:
    """A good message with two things in it exchanged at most."""
    message = wire(good)
    for _ in range(draw(st.integers(0, 2))):
        holder, key = draw(st.sampled_from(places(message)))
        holder[key] = wire(draw(NEAR))
    return message


@given(nearly(REPORT))
def test_what_is_nearly_a_report_is_refused_or_means_one_thing(said: Any) -> None:
    """What is taken is whole numbers in range, and reads the same once it is said again."""
    try:
        report = codec.decode_report(said)
    except WireError:
        return
    assert all(type(r.seq) is type(r.revision) is type(r.started_ms) is int and r.seq >= 1 for r in report.rounds)
    assert all(-7 <= sample <= 60_000_000 for r in report.rounds for sample in r.samples)
    assert codec.decode_report(wire(codec.encode_report(report))) == report


@given(nearly(HELLO))
def test_what_is_nearly_a_handshake_is_refused_or_means_one_thing(said: Any) -> None:
    """Likewise."""
    try:
        hello = codec.decode_handshake(said)
    except WireError:
        return
    assert codec.decode_handshake(wire(codec.encode_handshake(hello))) == hello


def test_targets_round_trip() -> None:
    """A target set arrives as it was sent."""
    message = TargetSet(
        agent_id="a", revision=4, issued_at=5, interval_s=5.0, targets=(Target(id=1, name="gw", address="192.0.2.1"),)
    )

    assert codec.decode_targets(wire(codec.encode_targets(message))) == message


def test_every_sample_has_a_word() -> None:
    """Each outcome but "not probed" has the status word that /monitoring shows."""
    assert status_of(0) == "ok"
    assert status_of(Outcome.NOT_PROBED) is None
    assert {status_of(o) for o in Outcome if o is not Outcome.NOT_PROBED} == {"timeout", "unreachable", "error"}


def test_a_nested_tag_is_refused_not_fallen_over() -> None:
    """Brackets without end come from a stranger, before any passphrase: an answer, no fault."""
    tag = base64.urlsafe_b64encode(b"[" * 30_000).decode()
    sent = {"passphrase": f"{PLAIN_TAG}{tag}.x", "hostname": "a", "ip_address": "192.0.2.1", "version": "1"}

    with pytest.raises(WireError) as caught:
        codec.decode_handshake(sent)

    assert caught.value.code is ErrorCode.MALFORMED
