"""What the server lets in from a Socket.IO client before any handler sees it.

python-socketio calls a client's `connect` or `disconnect` event like its own, fails on an event without a name, and
does not tell a handler whether the client waits for an acknowledgement. All three end here.
"""

from __future__ import annotations

from typing import Any

from socketio.packet import EVENT, Packet

UNKNOWN = "unknown-event"
RESERVED = ("connect", "disconnect", UNKNOWN, "*")


class CheckedPacket(Packet):  # type: ignore[misc]
    """A packet whose event data always reads [name, argument, asked for an acknowledgement]."""

    def decode(self, encoded_packet: Any) -> int:
        """As the parent; returns the number of attachments to wait for."""
        attachments: int = super().decode(encoded_packet)
        if self.packet_type == EVENT:
            self.data = _checked(self.data, self.id is not None)  # type: ignore[has-type]
        return attachments


def _checked(data: object, wants_ack: bool) -> list[Any]:
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] in RESERVED:
        return [UNKNOWN, None, wants_ack]
    return [data[0], data[1] if len(data) > 1 else None, wants_ack]
