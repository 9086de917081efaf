"""One Socket.IO connection over TLS in an asyncio loop: the bytes of the agent's own link without its threads.

A thousand links take four thousand threads, and then two processors measure those. Must not know: what messages mean.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
from collections.abc import Callable
from typing import Any

from pingmon_agent.config import Server as Address
from pingmon_agent.wire.contract import NAMESPACE

Json = dict[str, Any]
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE = 0x81, 0x88  # whole messages


class LineError(ConnectionError):
    """The peer said what no pingmon server says, or goodbye."""


class LeanLine:
    """An open connection in namespace /agent. `on_event(name, body)` returns what to acknowledge, or None."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, Callable[[object], None]] = {}
        self._asked = 0
        self.on_event: Callable[[str, object], Json | None] = lambda *_: None

    @classmethod
    async def open(cls, address: Address, context: ssl.SSLContext) -> LeanLine:
        """Connect and join the namespace; raises OSError, EOFError."""
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        line = cls(reader, writer)
        try:
            await line._upgrade(f"{address.host}:{address.port}")
            await line._expect("0")
            line._send(f"40{NAMESPACE},")
            await line._expect(f"40{NAMESPACE},")
        except BaseException:
            writer.transport.abort()
            raise
        return line

    @property
    def leaf(self) -> bytes:
        """The server's certificate (DER)."""
        found: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found

    async def _upgrade(self, host: str) -> None:
        key = base64.b64encode(os.urandom(16))
        request = (
            f"GET /socket.io/?transport=websocket&EIO=4 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._writer.write(request.encode())
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()) not in answer:
            raise LineError(f"no websocket: {answer[:60]!r}")

    async def _expect(self, start: str) -> None:
        said = await self._message()
        if not said.startswith(start):
            raise LineError(f"expected {start}, heard {said[:60]}")

    async def _message(self) -> str:
        """The next text message; servers send each in one frame, unmasked."""
        kind, length = await self._reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
        data = await self._reader.readexactly(length)
        if kind == _CLOSE:
            raise LineError("the server closed the websocket")
        if kind != _TEXT:
            raise LineError(f"a frame of kind {kind:#x}")
        return data.decode()

    def _send(self, text: str) -> None:
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = bytes((_TEXT, 0x80 | size)) if size < 126 else bytes((_TEXT, 0xFE)) + size.to_bytes(2, "big")
        over = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(over, "big")).to_bytes(size, "big")
        self._writer.write(head + mask + masked)

    def emit(self, event: str, payload: Json, answered: Callable[[object], None]) -> None:
        """Send an event; `answered` gets its acknowledgement."""
        self._asked += 1
        self._waiting[self._asked] = answered
        self._send(f"42{NAMESPACE},{self._asked}{json.dumps([event, payload], separators=(',', ':'))}")

    async def listen(self) -> None:
        """Hear the server until the connection ends, which raises OSError or EOFError."""
        while True:
            said = await self._message()
            if said == "2":
                self._send("3")
            elif said.startswith((f"42{NAMESPACE},", f"43{NAMESPACE},")):
                self._hear(said[1], said[len(NAMESPACE) + 3 :])
            else:
                raise LineError(f"the server said {said[:60]}")

    def _hear(self, kind: str, rest: str) -> None:
        digits, _, body = rest.partition("[")
        values = json.loads("[" + body)
        if kind == "3":
            self._waiting.pop(int(digits))(values[0])
            return
        answer = self.on_event(str(values[0]), values[1])
        if digits and answer is not None:
            self._send(f"43{NAMESPACE},{digits}{json.dumps([answer], separators=(',', ':'))}")

    def cut(self) -> None:
        """End it at once."""
        self._writer.transport.abort()
