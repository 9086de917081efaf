"""Asking the server that runs on this host how it is, over its own TLS listener.

The answer counts where it comes with the certificate of the configuration; no authority is needed for that. Must not
know: what is done with the answer.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path

from pingmon.config import Config

from .pem_files import der_of, load_certificate
from .plain import CommandError

PATIENCE_S = 5.0
_VERSION = re.compile(r'^pingmon_server_build_info\{[^}]*\bversion="([^"]*)"', re.MULTILINE)
_AGENTS = re.compile(r'^pingmon_server_websocket_clients\{kind="agent"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """`why` it is not ready, None where it is. `runs`: whether anything listens there.

    `version` and `connected` (agents) are None where it does not say: metrics.allow may leave this host out.
    """

    why: str | None = None
    runs: bool = True
    version: str | None = None
    connected: int | None = None


def address_of(config: Config) -> str:
    """Where this host reaches its own server."""
    try:
        listen = ip_address(config.server.listen)
    except ValueError:
        return config.server.listen  # a name
    if not listen.is_unspecified:
        return str(listen)
    return "::1" if listen.version == 6 else "127.0.0.1"


def ask(config: Config) -> Answer:
    """Whether the server is ready. Never raises for what the server is or does."""
    host, port = address_of(config), config.server.port
    where = f"{host} port {port}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing secret goes out; who answers is told by the certificate itself, see below.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(host, port, timeout=PATIENCE_S, context=context)
    try:
        connection.connect()
        if (strange := _strange(connection, config)) is not None:
            return Answer(f"what answers at {where} {strange}")
        status, body = _get(connection, "/-/ready")
        if status != 200:
            return Answer(body.strip() or f"it answers {status} at {where}")
        return _facts(*_get(connection, "/metrics"))
    except ConnectionRefusedError:
        return Answer(f"nothing listens at {where}; start it with `systemctl start pingmon-server`", runs=False)
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        return Answer(f"no answer at {where} ({reason}); its log says more: `journalctl -u pingmon-server`")
    finally:
        connection.close()


def _get(connection: HTTPSConnection, path: str) -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode("utf-8", "replace")


def _strange(connection: HTTPSConnection, config: Config) -> str | None:
    """Why the other end is not believed to be this server."""
    try:
        ours = der_of(load_certificate(Path(config.tls.certificate)))
    except CommandError as error:
        return f"cannot be told from others: {error}"
    if isinstance(connection.sock, ssl.SSLSocket) and connection.sock.getpeercert(binary_form=True) == ours:
        return None
    return (
        f"does not show {config.tls.certificate}: another program, or a new certificate that was not taken over; "
        "its log says why: `journalctl -u pingmon-server`"
    )


def _facts(status: int, body: str) -> Answer:
    if status != 200:
        return Answer()
    version, agents = _VERSION.search(body), _AGENTS.search(body)
    return Answer(
        version=version.group(1) if version else None,
        connected=round(float(agents.group(1))) if agents else None,
    )
