"""A hostile client made of sockets: every byte can be said wrong. The bystander uses it too, for honest words."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
AGENT = "/agent"
TEXT, BINARY, CLOSE, PING, CONTINUED = 1, 2, 8, 9, 0
ATTACKER = "127.0.0.66"


class GoneError(Exception):
    """The server has ended the connection; `code` is that of its close frame, if one came."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


def context(ca_file: Path | str) -> ssl.SSLContext:
    """Trusts the test's CA alone."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(ca_file)
    return made


def tcp(port: int, source: str = "", small_window: bool = False, timeout_s: float = 20.0) -> socket.socket:
    """A plain connection to the server on loopback, from another address of loopback."""
    plain = socket.socket()
    plain.settimeout(timeout_s)
    if small_window:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if source:
        plain.bind((source, 0))
    plain.connect(("127.0.0.1", port))
    return plain


def tcp_state(line: socket.socket) -> str:
    """What the kernel thinks of the connection: `established`, `fin` (the server has ended it) or `reset`."""
    state = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return {1: "established", 7: "reset", 8: "fin"}.get(state, str(state))


def ended_after(line: socket.socket, limit_s: float) -> float:
    """Seconds until the server ends the TCP connection, seen by the kernel, without reading from it."""
    began = time.monotonic()
    while tcp_state(line) == "established":
        if time.monotonic() - began > limit_s:
            raise AssertionError(f"still connected after {limit_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Client:
    """One websocket, from TCP up; `opened()` for the usual start."""

    port: int
    ca_file: Path | str
    source: str = ""
    small_window: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    query: str = "EIO=4&transport=websocket"
    line: ssl.SSLSocket = field(init=False)
    answer_headers: str = ""

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self._buffer = b""
        self.events: list[tuple[str, Any]] = []
        self.others: list[str] = []
        plain = tcp(self.port, self.source, self.small_window)
        self.line = context(self.ca_file).wrap_socket(plain, server_hostname="127.0.0.1")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """GoneError without a word."""
        self.line.close()

    # -- HTTP and frames --

    def upgrade(self, **changes: str) -> int:
        """Ask for a websocket; the HTTP status. A header set to "" is left out."""
        names = {"Host": f"127.0.0.1:{self.port}", "Upgrade": "websocket", "Connection": "Upgrade"}
        names |= {"Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), "Sec-WebSocket-Version": "13"}
        names |= self.headers | {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [f"{name}: {value}" for name, value in names.items() if value]
        self.line.sendall("\r\n".join([f"GET /socket.io/?{self.query} HTTP/1.1", *lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.line.recv(4096)
            if not more:
                raise GoneError
            head += more
        self.answer_headers, _, self._buffer = (
            head.decode("latin-1").partition("\r\n\r\n")[0],
            b"",
            head.split(b"\r\n\r\n", 1)[1],
        )
        return int(self.answer_headers.split()[1])

    def send_frame(self, payload: bytes, opcode: int = TEXT, final: bool = True, claim: int | None = None,
                   rsv: int = 0) -> None:  # fmt: skip
        """One masked frame; `claim` is the length it says it has."""
        self.line.sendall(frame(payload, opcode, final, claim, rsv))

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                more = self.line.recv(65536)
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                raise GoneError
            self._buffer += more
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def read_frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame; GoneError with the code of a close frame."""
        first, second = self._read(2)
        length = second & 127
        if length >= 126:
            length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
        payload, opcode = self._read(length), first & 15
        if opcode == CLOSE:
            raise GoneError(struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else None)
        return opcode, payload

    # -- Engine.IO and Socket.IO --

    def opened(self, namespace: str = AGENT) -> Client:
        """Upgraded and, unless it is "", joined."""
        assert self.upgrade() == 101, self.answer_headers
        assert self.receive(lambda text: text.startswith("0{")) is not None
        if namespace:
            self.say(f"40{namespace},")
            self.receive(lambda text: text.startswith(f"40{namespace},"))
        return self

    def say(self, text: str) -> None:
        """One Engine.IO packet."""
        self.send_frame(text.encode())

    def receive(self, fits: Any, limit_s: float = 15.0) -> str:
        """The first text that fits; pings are answered, everything else is kept in `events` and `others`."""
        self.line.settimeout(limit_s)
        while True:
            opcode, payload = self.read_frame()
            text = payload.decode() if opcode == TEXT else ""
            if text == "2":
                self.say("3")
            elif text and fits(text):
                return text
            elif found := re.match(r"42[^,]*,\d*(\[.*)", text, re.DOTALL):
                self.events.append(tuple(json.loads(found.group(1))))
            else:
                self.others.append(text)

    def emit(self, event: str, payload: object = None) -> None:
        """An event that asks for no acknowledgement."""
        self.say(f"42{AGENT},{json.dumps([event, payload])}")

    def raw_event(self, data: str) -> str:
        """Send `data` as the body of an event that asks for an acknowledgement; the id it is answered under."""
        number = str(next(self._ids))
        self.say(f"42{AGENT},{number}{data}")
        return number

    def answer(self, number: str, limit_s: float = 15.0) -> Json:
        """What event `number` was answered."""
        head = f"43{AGENT},{number}["
        return dict(json.loads(self.receive(lambda text: text.startswith(head), limit_s)[len(head) - 1 :])[0])

    def ask(self, event: str, payload: object = None) -> Json:
        """Emit and wait for the acknowledgement."""
        return self.answer(self.raw_event(json.dumps([event, payload])))

    def event(self, name: str, limit_s: float = 5.0) -> Json:
        """The argument of the next event `name`."""
        while True:
            for found in self.events:
                if found[0] == name:
                    self.events.remove(found)
                    return dict(found[1])
            text = self.receive(lambda text: text.startswith("42"), limit_s)
            self.events.append(tuple(json.loads(text[text.index("[") :])))

    def ending(self, limit_s: float = 15.0) -> int | None:
        """Read until the server ends the connection: the code of its close frame, None for none."""
        self.line.settimeout(limit_s)
        try:
            while True:
                self.read_frame()
        except GoneError as gone:
            return gone.code


def frame(payload: bytes, opcode: int = TEXT, final: bool = True, claim: int | None = None, rsv: int = 0) -> bytes:
    """A masked client frame."""
    length = len(payload) if claim is None else claim
    head = bytes([final << 7 | rsv << 4 | opcode])
    if length < 126:
        head += bytes([128 | length])
    elif length < 65536:
        head += bytes([128 | 126]) + struct.pack("!H", length)
    else:
        head += bytes([128 | 127]) + struct.pack("!Q", length)
    mask = os.urandom(4)
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")


def flood(client: Client, texts: bytes, limit_s: float) -> float:
    """Send this again and again, reading nothing, until the server ends it; seconds that took."""
    began = time.monotonic()
    client.line.settimeout(limit_s)
    with suppress(OSError):
        while time.monotonic() - began < limit_s:
            client.line.sendall(texts)
    return time.monotonic() - began


def frames_until_cut(client: Client, payload: bytes, opcode: int, then: int | None = None, final: bool = True) -> int:
    """How many frames of a thousand the server took before it had enough; AssertionError if it never had.

    A closed connection may show as one that takes nothing any more: our kernel asks a window that stays shut.
    """
    client.line.settimeout(2)
    for number in range(1000):
        try:
            client.send_frame(payload, opcode if number == 0 or then is None else then, final)
        except OSError:
            return number
    raise AssertionError("the server took all of them")


def hello(passphrase: str, hostname: str, ip_address: str = "192.0.2.10") -> Json:
    """The handshake of a legacy agent."""
    return {"passphrase": passphrase, "hostname": hostname, "ip_address": ip_address, "version": "0.9-abuse"}


def sample(rtt_ms: float, at_ms: int | None = None) -> Json:
    """One sample for the target `here`."""
    at = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    return {"target": "here", "rtt_ms": rtt_ms, "timestamp": at / 1000}
