"""Every way in which a TLS connection can fail, against real servers on loopback, with the exact sentence."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pingmon_agent.tls import ConnectError, Fault, client_context, connect

from .certificates import Authority, Leaf

Serve = Callable[[ssl.SSLContext | bytes | None], int]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA that the agent trusts."""
    return Authority(tmp_path / "good")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that takes one connection: TLS by a context, plain bytes, or silence. Returns its port."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(speak: ssl.SSLContext | bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=_serve_one, args=(listener, speak)))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        socket.create_connection(listener.getsockname()[:2]).close()  # frees one that nobody connected to
    for thread in threads:
        thread.join(5)
    for listener in listeners:
        listener.close()


def _serve_one(listener: socket.socket, speak: ssl.SSLContext | bytes | None) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(3)
        try:
            if isinstance(speak, ssl.SSLContext):
                with speak.wrap_socket(peer, server_side=True) as tls:
                    tls.recv(1)
                return
            if speak is not None:
                peer.sendall(speak)
            peer.recv(4096)
            if speak is None:
                peer.recv(1)
        except OSError:
            return  # the client turned away, as it should


def context_for(leaf: Leaf) -> ssl.SSLContext:
    """A server context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    return context


def refused(authority: Authority, port: int, host: str = "127.0.0.1", timeout_s: float = 3.0) -> ConnectError:
    """The error of connecting."""
    with pytest.raises(ConnectError) as caught:
        connect(host, port, client_context(str(authority.file)), str(authority.file), timeout_s)
    return caught.value


def test_a_trusted_server_is_reached_over_tls_1_3(authority: Authority, serve: Serve) -> None:
    """The good case, by address and with the certificate's own CA."""
    port = serve(context_for(authority.issue("127.0.0.1")))

    with connect("127.0.0.1", port, client_context(str(authority.file)), "ca") as tls:
        assert tls.version() == "TLSv1.3"


def test_another_ca_is_not_trusted(authority: Authority, serve: Serve, tmp_path: Path) -> None:
    """A server of somebody else's CA."""
    port = serve(context_for(Authority(tmp_path / "other").issue("127.0.0.1")))

    error = refused(authority, port)

    assert error.fault is Fault.UNTRUSTED
    assert str(error) == (
        f"the certificate of 127.0.0.1:{port} is not trusted by the CA in {authority.file} (unable to get local issuer "
        "certificate); copy the CA certificate of this server there"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_name(authority: Authority, serve: Serve, host: str) -> None:
    """The right CA, the wrong name: told apart from a CA that is not trusted."""
    port = serve(context_for(authority.issue("monitor.example.net", "192.0.2.1")))

    error = refused(authority, port, host)

    assert error.fault is Fault.WRONG_NAME
    assert str(error) == (
        f"the certificate of {host}:{port} is for another name; "
        f"use a name from it in server.url, or issue one for {host}"
    )


def test_an_expired_certificate(authority: Authority, serve: Serve) -> None:
    """Says renew, or look at the clock."""
    port = serve(context_for(authority.issue("127.0.0.1", expired=True)))

    error = refused(authority, port)

    assert error.fault is Fault.EXPIRED
    expected = (
        f"the certificate of 127.0.0.1:{port} has expired; renew it on the server, or correct the clock of this host"
    )
    assert str(error) == expected


def test_nothing_listens(authority: Authority) -> None:
    """A closed port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = refused(authority, port)

    assert error.fault is Fault.REFUSED
    assert str(error) == (
        f"nothing listens on 127.0.0.1:{port}; check that the server runs and that the port in server.url is right"
    )


def test_a_name_that_does_not_resolve(authority: Authority) -> None:
    """A name that no DNS knows."""
    error = refused(authority, 1, "no-such-host.invalid")

    assert error.fault is Fault.NAME
    assert str(error).startswith("the name no-such-host.invalid does not resolve (")
    assert str(error).endswith("); check server.url and the DNS of this host")


def test_a_server_that_does_not_speak_tls(authority: Authority, serve: Serve) -> None:
    """Plain HTTP on the port."""
    port = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    error = refused(authority, port)

    assert error.fault is Fault.NOT_TLS
    assert str(error) == f"127.0.0.1:{port} does not speak TLS (WRONG_VERSION_NUMBER); check server.url"


def test_a_server_that_says_nothing(authority: Authority, serve: Serve) -> None:
    """Accepts and is silent: given up in time."""
    port = serve(None)

    error = refused(authority, port, timeout_s=0.3)

    assert error.fault is Fault.TIMEOUT
    assert str(error) == (
        f"127.0.0.1:{port} took the connection but sent no TLS answer in 0.3 s; check what runs there"
    )


def test_a_server_without_tls_1_3(authority: Authority, serve: Serve) -> None:
    """An older protocol is refused, not negotiated."""
    context = context_for(authority.issue("127.0.0.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    error = refused(authority, serve(context))

    assert error.fault is Fault.PROTOCOL
    assert "does not speak TLS 1.3; upgrade the server or its TLS proxy" in str(error)


def test_tls_1_2_is_spoken_where_the_setting_says_so(authority: Authority, serve: Serve) -> None:
    """The same server, reached with the lower minimum; trust and name are checked all the same."""
    context = context_for(authority.issue("127.0.0.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with connect("127.0.0.1", serve(context), client_context(str(authority.file), "1.2"), "ca") as tls:
        assert tls.version() == "TLSv1.2"


def test_a_ca_file_without_certificate(tmp_path: Path) -> None:
    """Readable, but no PEM in it."""
    file = tmp_path / "ca.pem"
    file.write_text("hello")
    with pytest.raises(ConnectError) as caught:
        client_context(str(file))

    assert caught.value.fault is Fault.CA_FILE
    assert str(caught.value) == (
        f"cannot use the CA in {file}: no PEM certificate in it; put the CA certificate of the server there"
    )


def test_the_environment_cannot_add_trust(
    authority: Authority, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names the foreign CA and SSLKEYLOGFILE a file: the server stays untrusted, no key is written."""
    other, keys = Authority(tmp_path / "other"), tmp_path / "keys"
    monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(other.file))

    error = refused(authority, serve(context_for(other.issue("127.0.0.1"))))

    assert error.fault is Fault.UNTRUSTED
    assert not keys.exists()
