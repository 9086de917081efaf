"""What the server must still do to be called alive: take a connection, read its databases, turn its committer.

Each check asks the real thing the way a stranger would. One that hangs says nothing, and one that fails raises; a
database that answers with an error is alive, for the server goes on without it and says so (services/health.py).
Must not know: systemd, what follows from a check.
"""

from __future__ import annotations

import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .concurrency import run_blocking
from .gate import Gate
from .services.ingest import Ingest

CONNECT_TIMEOUT_S = 8.0
TURN_TIMEOUT_S = 30.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - asking, not listening


class LifelessError(Exception):
    """What was asked does not work; the text says what."""


class Front:
    """Connects to the server as a client does: TCP, TLS handshake, one page that needs no database.

    A plain TCP connect would prove nothing: the kernel answers it. The gate knows of the connection, so that neither an
    attack from this host nor a full house is taken for a dead server.
    """

    def __init__(self, listen: str, port: int, gate: Gate) -> None:
        self._host, self._port, self._gate = EVERYWHERE.get(listen, listen), port, gate
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # It asks itself and says nothing secret; its certificate is for the names others use, and may have ended.
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    def check(self) -> None:
        """Raises LifelessError."""
        try:
            self._ask()
        except (OSError, HTTPException) as error:
            raise LifelessError(f"{self._host} port {self._port}: {error or type(error).__name__}") from error

    def _ask(self) -> None:
        with self._bound() as plain:
            own, port = plain.getsockname()[:2]
            with self._gate.expecting(own, port):
                plain.connect((self._host, self._port))
                with self._context.wrap_socket(plain) as secure:
                    connection = HTTPConnection(self._host, self._port)
                    connection.sock = secure
                    connection.request("GET", "/-/healthy", headers={"Connection": "close"})
                    answer = connection.getresponse()
                    answer.read()
        if answer.status != 200:
            raise LifelessError(f"/-/healthy answers {answer.status}")

    def _bound(self) -> socket.socket:
        """A socket whose port is known before it connects."""
        try:
            return _bound(self._host)
        except OSError:
            if self._host != "::1":
                raise
            self._host = "127.0.0.1"  # IPv6 is off on the loopback device; "::" listens to IPv4 as well
            return _bound(self._host)


def _bound(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.settimeout(CONNECT_TIMEOUT_S)
        made.bind((host, 0))
    except OSError:
        made.close()
        raise
    return made


def databases(files: Iterable[Path]) -> Callable[[], None]:
    """A check that reads each of these SQLite files once, off the hub."""

    paths = list(files)

    def check() -> None:
        for path in paths:
            run_blocking(_read, path)

    return check


def _read(file: Path) -> bool:
    """Whether it could be read; returns at all only if the database answers. Runs in a native thread: no logging."""
    try:
        # A new connection: one that is open already would go on reading a file that is gone.
        database = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=1)
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            database.close()
    except sqlite3.Error:
        return False
    return True


def committer(ingest: Ingest) -> Callable[[], None]:
    """A check that the committer comes by and does something it is given."""

    def check() -> None:
        done = threading.Event()
        ingest.between_commits(done.set)
        if not done.wait(TURN_TIMEOUT_S):
            raise LifelessError(f"it has not come by for {TURN_TIMEOUT_S:.0f} s")

    return check
