"""What the server lets in from a Socket.IO client before any handler sees it.

python-socketio calls a client's `connect` or `disconnect` event like its own, fails on an event without a name, does
not tell a handler whether the client waits for an acknowledgement, keeps as many attachments as a client announces, and
writes a traceback for each packet it cannot read. All of that ends here. Nothing in the contract carries bytes.
"""

from __future__ import annotations

from typing import Any

from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT, Packet

UNKNOWN = "unknown-event"
EXPECTED = (CONNECT, DISCONNECT, EVENT, ACK, BINARY_EVENT, BINARY_ACK)
RESERVED = ("connect", "disconnect", UNKNOWN, "*")


class CheckedPacket(Packet):  # type: ignore[misc]
    """A packet whose event data always reads [name, argument, asked for an acknowledgement]."""

    data: Any

    def __init__(self, *arguments: Any, encoded_packet: Any = None, **more: Any) -> None:
        # The parent leaves an empty message undecoded, as an event without data.
        message = " " if encoded_packet in ("", b"") else encoded_packet
        super().__init__(*arguments, encoded_packet=message, **more)

    def decode(self, encoded_packet: Any) -> int:
        """As the parent, but never raises; returns the number of attachments to wait for."""
        try:
            attachments: int = super().decode(encoded_packet)
        except (ValueError, TypeError, RecursionError):
            attachments, self.packet_type = 0, CONNECT_ERROR
        if self.packet_type not in EXPECTED:
            self.packet_type, self.id, self.data = EVENT, None, None
        binary = self.packet_type in (BINARY_EVENT, BINARY_ACK)
        if binary:
            # Its bytes are dropped as they come, so no placeholder may be left that wants them.
            self.data = self.data[:1] if isinstance(self.data, list) else []
            if not attachments:
                self.packet_type = EVENT if self.packet_type == BINARY_EVENT else ACK
        if self.packet_type in (EVENT, BINARY_EVENT):
            self.data = _checked(self.data, self.id is not None)
        elif self.packet_type == ACK and not isinstance(self.data, list):
            self.data = []
        return attachments

    def add_attachment(self, attachment: Any) -> bool:  # noqa: ARG002 - counted, not kept
        """True once all announced attachments have come."""
        done: bool = super().add_attachment(b"")
        return done


def _checked(data: object, wants_ack: bool) -> list[Any]:
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] in RESERVED:
        return [UNKNOWN, None, wants_ack]
    return [data[0], data[1] if len(data) > 1 else None, wants_ack]
