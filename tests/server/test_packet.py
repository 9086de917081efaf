"""What a Socket.IO client may say reaches handlers in one shape, and its tricks do not reach them at all."""

from __future__ import annotations

import pytest

from pingmon.adapters.packet import UNKNOWN, CheckedPacket


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
        ("2/agent,[]", [UNKNOWN, None, False]),
        ("2/agent,[null]", [UNKNOWN, None, False]),
        ("2/agent,[5,6]", [UNKNOWN, None, False]),
        ('2/agent,{"a":1}', [UNKNOWN, None, False]),
        ("2/agent,", [UNKNOWN, None, False]),
    ],
)
def test_events_always_have_a_name_an_argument_and_a_wish(text: str, data: list[object]) -> None:
    """Handlers can rely on [name, argument, asked for an acknowledgement]; reserved names are nobody's event."""
    assert CheckedPacket(encoded_packet=text).data == data


def test_other_packets_pass_untouched() -> None:
    """Acknowledgements and connects are the library's own business."""
    assert CheckedPacket(encoded_packet='3/agent,1[{"ok":true}]').data == [{"ok": True}]
    assert CheckedPacket(encoded_packet='0/agent,{"x":1}').data == {"x": 1}
