"""The socket that one thread reads while another writes, over real TLS on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pingmon_agent.tls import client_context
from pingmon_agent.wire.duplex import DuplexSocket

from .certificates import Authority

MESSAGE = 64
MESSAGES = 10_000


@contextmanager
def pair(folder: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """A TLS connection: the client's end, with the time limit that the agent's have, and the server's."""
    authority = Authority(folder)
    leaf = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    accepted: list[ssl.SSLSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            accepted.append(context.wrap_socket(listener.accept()[0], server_side=True))

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        plain = socket.create_connection(listener.getsockname(), timeout=10)
        client = client_context(str(authority.file)).wrap_socket(plain, server_hostname="127.0.0.1")
        acceptor.join(10)
    with client, accepted[0] as server:
        yield client, server


def echo(peer: ssl.SSLSocket) -> None:
    """Send back what comes, a little later than at once, until it ends; one thread, so nothing races at this end."""
    while data := peer.recv(4096):
        time.sleep(0.000_05)
        peer.sendall(data)


def exchange(line: DuplexSocket | ssl.SSLSocket) -> list[str]:
    """Write all messages while another thread reads them back; what went wrong."""
    sent = b"".join(number.to_bytes(4, "big") * (MESSAGE // 4) for number in range(MESSAGES))
    got, faults = bytearray(), []

    def read() -> None:
        try:
            while len(got) < len(sent):
                part = line.recv(4096)
                if not part:
                    faults.append("the end, in the middle")
                    return
                got.extend(part)
        except OSError as error:
            faults.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for at in range(0, len(sent), MESSAGE):
            line.send(sent[at : at + MESSAGE])
    except OSError as error:
        faults.append(repr(error))
    reader.join(30)
    if not faults and bytes(got) != sent:
        faults.append("other bytes came back than were sent")
    return faults


def flood(line: DuplexSocket) -> None:
    """More than any buffer takes."""
    for _ in range(10_000):
        line.send(bytes(65_536))


@pytest.mark.slow
def test_one_thread_reads_while_another_writes(tmp_path: Path) -> None:
    """Every byte comes back, in order, and nobody takes a "try again" for the end."""
    with pair(tmp_path) as (client, server):
        echoing = threading.Thread(target=echo, args=(server,))
        echoing.start()
        line = DuplexSocket(client)
        faults = exchange(line)
        line.close()
        echoing.join(10)  # before its socket goes with the pair

        assert faults == []
        assert not echoing.is_alive()


def test_a_silent_peer_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    """TimeoutError, not before its time; the connection is good after it."""
    with pair(tmp_path) as (client, server):
        line = DuplexSocket(client)
        assert line.gettimeout() == 10
        line.settimeout(0.2)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="silent for too long"):
            line.recv(10)
        assert 0.2 <= time.monotonic() - began < 5

        server.sendall(b"late")
        line.settimeout(None)
        assert line.recv(10) == b"late"


def test_a_peer_that_takes_nothing_is_given_up_too(tmp_path: Path) -> None:
    """TimeoutError when the buffers of both ends are full."""
    with pair(tmp_path) as (client, _):
        line = DuplexSocket(client)
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            flood(line)


def test_close_wakes_a_reader_and_keeps_the_descriptor(tmp_path: Path) -> None:
    """The reader sees the end at once; the number stays taken until the release, and then nobody gets in any more."""
    with pair(tmp_path) as (client, _):
        line, number = DuplexSocket(client), client.fileno()
        line.settimeout(None)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(line.recv(10)))
        reader.start()
        time.sleep(0.1)
        line.close()
        line.close()
        reader.join(5)

        assert got == [b""]
        assert line.fileno() == client.fileno() == number
        line.release()
        assert line.fileno() == client.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            line.recv(10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            line.send(b"late")


def test_the_release_waits_for_whoever_is_inside(tmp_path: Path) -> None:
    """While a thread is in the middle of a read, the descriptor is not given to another connection."""
    with pair(tmp_path) as (client, _):
        line, number = DuplexSocket(client), client.fileno()
        after_reading: list[int] = []

        def slowly(size: int) -> bytes:
            try:
                return ssl.SSLSocket.recv(client, size)
            finally:
                time.sleep(0.2)  # as on a busy host
                after_reading.append(client.fileno())

        client.recv = slowly  # type: ignore[method-assign, assignment]
        reader = threading.Thread(target=line.recv, args=(10,))
        reader.start()
        time.sleep(0.05)
        line.release()
        reader.join(5)

        assert client.fileno() == -1
        assert set(after_reading) == {number}
