"""What the server lets in from a Socket.IO client before any handler sees it.

python-socketio calls a client's `connect` or `disconnect` event like its own, fails on an event without a name, does
not tell a handler whether the client waits for an acknowledgement, keeps as many attachments as a client announces,
takes NaN for a number, and writes a traceback for each packet it cannot read. All of that ends here. Nothing in the
contract carries bytes.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import engineio.packet
import engineio.socket
from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT, DISCONNECT, EVENT, Packet

UNKNOWN, MALFORMED = "unknown-event", "malformed-packet"
RESERVED = ("connect", "disconnect", UNKNOWN, MALFORMED, "*")
_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


class UnreadableError(ValueError):
    """The packet is no Socket.IO, so nobody can be found to answer it."""


class CheckedPacket(Packet):  # type: ignore[misc]
    """A packet whose event data always reads [name, argument, asked for an acknowledgement].

    What is no event is `UNKNOWN` or, with a sentence for its argument, `MALFORMED`. Raises UnreadableError.
    """

    data: Any
    id: int | None
    packet_type: Any

    def __init__(self, *arguments: Any, encoded_packet: Any = None, **more: Any) -> None:
        # The parent leaves an empty message undecoded, as an event without data.
        message = " " if encoded_packet in ("", b"") else encoded_packet
        super().__init__(*arguments, encoded_packet=message, **more)

    def decode(self, encoded_packet: Any) -> int:
        """As the parent; no packet waits for attachments: 0."""
        fault = ""
        try:
            announced: int = super().decode(encoded_packet)
        except (ValueError, TypeError, RecursionError) as error:
            announced, self.data, fault = 0, None, _sentence(error)
        if self.packet_type in (BINARY_EVENT, BINARY_ACK) or announced:
            fault = "nothing in this contract carries bytes"
        event = self.packet_type in (EVENT, BINARY_EVENT)
        known = event or (not fault and self.packet_type in (CONNECT, DISCONNECT, ACK))
        if not known or (event and self.namespace is None):
            raise UnreadableError(fault or "there is no such packet, or no namespace for it")
        if event:
            self.packet_type, self.data = EVENT, _checked(self.data, self.id is not None, fault)
        elif self.packet_type == ACK and (not isinstance(self.data, list) or not self.id):
            self.data, self.id = [], None  # number 0 is where python-socketio keeps its counter
        return 0


class _Json:
    """What python-socketio takes for a json module: RFC 8259 and nothing else, no name twice."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text: str) -> Any:
        value = _DECODER.decode(text)
        if _ESCAPED.search(text):
            _check_text(value)
        return value


CheckedPacket.json = _Json


class _AsText:
    """In place of a reader of JSON: a message is left as the text it came as."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(_text: str) -> NoReturn:
        raise ValueError("not read here")


class Frame(engineio.packet.Packet):  # type: ignore[misc]
    """What python-engineio's server takes a message for.

    Its own would read what looks like JSON: a list where Socket.IO has a text, and brackets without end would fail its
    reader outside of every `try`, so that a stranger's connection is never let go.
    """

    json = _AsText


class _ServersPackets:
    """The module as the server's connections see it; clients in the same process keep their own."""

    Packet = Frame

    def __getattr__(self, name: str) -> Any:
        return getattr(engineio.packet, name)


engineio.socket.packet = _ServersPackets()


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


# Numbers are left to Python, which refuses more than 4,300 digits: a function for each doubles the cost of a report.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_without_repetition)


def _check_text(value: Any) -> None:
    """Raises ValueError for half a character or a NUL in any string."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text holds the character U+0000")
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name)
            _check_text(item)


def _sentence(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeEncodeError):
        return "a text holds half a character"
    return f"it cannot be read: {error}"[:200]


def _checked(data: object, wants_ack: bool, fault: str) -> list[Any]:
    if not fault and (not isinstance(data, list) or not data or not isinstance(data[0], str)):
        fault = "an event is a list that begins with its name"
    if fault:
        return [MALFORMED, fault, wants_ack]
    assert isinstance(data, list)  # noqa: S101 - seen above
    if data[0] in RESERVED:
        return [UNKNOWN, None, wants_ack]
    return [data[0], data[1] if len(data) > 1 else None, wants_ack]
