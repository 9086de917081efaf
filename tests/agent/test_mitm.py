"""Between an agent and its server sits somebody with a certificate that others trust: what they get to see."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .certificates import Authority
from .pretend import AgentProcess

ALERT, HANDSHAKE, CLIENT_HELLO = 21, 22, 1
ENVIRONMENT = ("SSL_CERT_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass
class Mitm:
    """Takes one connection, does its half of the handshake as any web server would, and writes down all it gets.

    Without a context it speaks plain HTTP.
    """

    context: ssl.SSLContext | None
    wire: bytes = b""
    told: bytes = b""
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        if self.context is None:
            self._answer_in_clear(peer)
            return
        near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = self.context.wrap_bio(near, far, server_side=True)
        shaken = False
        with peer:
            peer.settimeout(5)
            while data := peer.recv(65_536):
                self.wire += data
                near.write(data)
                try:
                    if not shaken:
                        secured.do_handshake()
                        shaken = True
                    self.told += secured.read(65_536)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    self.trouble.append(str(error.reason))
                    return
                if far.pending:
                    peer.sendall(far.read())

    def _answer_in_clear(self, peer: socket.socket) -> None:
        with peer, suppress(ConnectionResetError):  # that is how the agent goes
            peer.settimeout(5)
            self.wire += peer.recv(65_536)
            peer.sendall(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
            while data := peer.recv(65_536):
                self.wire += data

    def close(self) -> None:
        self._listener.close()


def records(wire: bytes) -> list[tuple[int, bytes]]:
    """(content type, content) of each TLS record."""
    found = []
    while wire:
        kind, _, length = struct.unpack("!BHH", wire[:5])
        found.append((kind, wire[5 : 5 + length]))
        wire = wire[5 + length :]
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_case_30_somebody_with_another_authority_gets_a_hello_and_an_alert(
    tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real agent, every variable that libraries heed set in the attacker's favour: no byte of a request leaves it."""
    own, foreign = Authority(tmp_path / "own"), Authority(tmp_path / "public")
    leaf = foreign.issue("127.0.0.1", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    context.maximum_version = version
    mitm = Mitm(context)
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, str(foreign.file))
    monkeypatch.setenv("SSL_CERT_DIR", str(foreign.file.parent))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    agent = AgentProcess(tmp_path, mitm.port, own.file, server_minimum_tls="1.2")
    line = agent.wait_log("cannot connect")
    agent.stop()
    mitm.thread.join(10)
    mitm.close()

    assert f"is not trusted by the CA in {own.file}" in line
    assert mitm.told == b""
    assert mitm.trouble == ["TLSV1_ALERT_UNKNOWN_CA"]
    (kind, hello), *rest = records(mitm.wire)
    assert (kind, hello[0]) == (HANDSHAKE, CLIENT_HELLO)
    # In TLS 1.3 the alert travels as an encrypted record of 2 bytes, 1 of type and 16 of tag.
    assert sum(len(content) for _, content in rest) <= 20
    assert b"open sesame" not in mitm.wire
    assert b"probe-1" not in mitm.wire
    assert not (tmp_path / "keys").exists()


@pytest.mark.e2e
def test_case_30_a_server_that_offers_only_plain_text_gets_a_hello(tmp_path: Path) -> None:
    """There is no way down from TLS: the agent says so and goes."""
    own = Authority(tmp_path / "own")
    mitm = Mitm(None)
    agent = AgentProcess(tmp_path, mitm.port, own.file)
    line = agent.wait_log("cannot connect")
    agent.stop()
    mitm.thread.join(10)
    mitm.close()

    assert "does not speak TLS" in line
    (kind, hello), *rest = records(mitm.wire)
    assert (kind, hello[0]) == (HANDSHAKE, CLIENT_HELLO)
    assert {kind for kind, _ in rest} <= {ALERT}
    assert b"open sesame" not in mitm.wire
