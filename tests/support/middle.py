"""Somebody in the middle who ends TLS: shows a certificate of his own and passes everything on as it is."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pingmon_agent.wire.duplex import DuplexSocket

from .processes import Server


@contextmanager
def in_the_middle(server: Server, certificate: Path, key: Path) -> Iterator[str]:
    """The URL at which he waits; stopped at the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    onward = ssl.create_default_context(cafile=str(server.ca_file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=_serve, args=(listener, context, onward, server.port), daemon=True)]
        threads[0].start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(5)


def _serve(listener: socket.socket, context: ssl.SSLContext, onward: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return  # the listener was shut: the end
        threading.Thread(target=_join, args=(plain, context, onward, port), daemon=True).start()


def _join(plain: socket.socket, context: ssl.SSLContext, onward: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):
        near = DuplexSocket(context.wrap_socket(plain, server_side=True))
        onto = socket.create_connection(("127.0.0.1", port))
        far = DuplexSocket(onward.wrap_socket(onto, server_hostname="127.0.0.1"))
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join(5)


def _copy(source: DuplexSocket, sink: DuplexSocket) -> None:
    try:
        while data := source.recv(65_536):
            while data:
                data = data[sink.send(data) :]
    except OSError:
        return  # one side is gone, and the other is told
    finally:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.release()
