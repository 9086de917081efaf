"""What a Socket.IO client may say reaches handlers in one shape, and its tricks do not reach them at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingmon.adapters.packet import MALFORMED, UNKNOWN, CheckedPacket, UnreadableError

NO_EVENT = "an event is a list that begins with its name"
BYTES = "nothing in this contract carries bytes"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('2/agent,7["handshake",{"a":1}]', ["handshake", {"a": 1}, True]),
        ('2/agent,["handshake",{"a":1}]', ["handshake", {"a": 1}, False]),
        ('2/agent,0["handshake"]', ["handshake", None, True]),
        ('2/agent,["handshake",1,2,3]', ["handshake", 1, False]),
        ('2/agent,["connect",{}]', [UNKNOWN, None, False]),
        ('2/agent,["disconnect"]', [UNKNOWN, None, False]),
        ('2/agent,["*"]', [UNKNOWN, None, False]),
        (f'2/agent,["{MALFORMED}",1]', [UNKNOWN, None, False]),
        ("2/agent,[]", [MALFORMED, NO_EVENT, False]),
        ("2/agent,3[null]", [MALFORMED, NO_EVENT, True]),
        ("2/agent,[5,6]", [MALFORMED, NO_EVENT, False]),
        ('2/agent,{"a":1}', [MALFORMED, NO_EVENT, False]),
        ("2/agent,", [MALFORMED, NO_EVENT, False]),
        ('51-/agent,7["handshake",{"_placeholder":true,"num":0}]', [MALFORMED, BYTES, True]),
        ('5999999999-/agent,["handshake"]', [MALFORMED, BYTES, False]),
        ('2/agent,7["x",NaN]', [MALFORMED, "it cannot be read: NaN is no JSON", True]),
        ('2/agent,7["x",{"a":1,"a":1}]', [MALFORMED, "it cannot be read: a name stands twice in one object", True]),
        ('2/agent,7["x",["\\ud800"]]', [MALFORMED, "a text holds half a character", True]),
        ('2/agent,7["x",{"\\u0000":1}]', [MALFORMED, "it cannot be read: a text holds the character U+0000", True]),
        ('2/agent,7["x","\\ud83d\\ude00"]', ["x", "\U0001f600", True]),
        (f"2/agent,7{'[' * 20_000}", [MALFORMED, "it is nested too deep", True]),
    ],
)
def test_events_always_have_a_name_an_argument_and_a_wish(text: str, data: list[object]) -> None:
    """Handlers can rely on [name, argument, asked for an acknowledgement]; reserved names are nobody's event."""
    packet = CheckedPacket(encoded_packet=text)
    assert packet.data == data
    assert (packet.attachment_count, packet.id is not None) == (0, data[2])


def test_a_number_of_many_digits_is_malformed() -> None:
    """Reading it would take a time that grows with the square of its digits."""
    name, fault, _ = CheckedPacket(encoded_packet=f'2/agent,7["x",{"1" * 5000}]').data
    assert (name, "4300 digits" in fault) == (MALFORMED, True)


@pytest.mark.parametrize("text", ["", "x", "9", "4/agent,{}", "2", '2["handshake"]', "61-/agent,1[]", "3/agent,["])
def test_what_nobody_can_answer_is_unreadable(text: str) -> None:
    """A packet that names no namespace, or is none: the connection as a whole is told, or cut."""
    with pytest.raises(UnreadableError):
        CheckedPacket(encoded_packet=text)


def test_other_packets_pass_untouched() -> None:
    """Acknowledgements and connects are the library's own business, but for number 0, which it never gave."""
    assert CheckedPacket(encoded_packet='3/agent,1[{"ok":true}]').data == [{"ok": True}]
    assert CheckedPacket(encoded_packet="3/agent,0[1]").id is None
    assert CheckedPacket(encoded_packet='0/agent,{"x":1}').data == {"x": 1}


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[0-6][0-9-]{0,3}(/agent,)?[0-9]{0,3}[\[{\"].{0,30}")))
@example("2/agent,1e5")
@example("2/agent," + "9" * 200)
def test_no_text_gets_past_the_two_answers(text: str) -> None:
    """Whatever comes is a well-formed event, a packet of the library's own, or unreadable; never another exception."""
    try:
        packet = CheckedPacket(encoded_packet=text)
    except UnreadableError:
        return
    assert packet.attachment_count == 0
    assert packet.packet_type in (0, 1, 2, 3)
    if packet.packet_type == 2:
        name, argument, wish = packet.data
        assert isinstance(name, str)
        assert isinstance(wish, bool)
        assert packet.namespace.startswith("/")
        json.dumps(argument)
