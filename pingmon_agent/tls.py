"""The agent's one way to the server: a TLS connection that trusts the given CA and nothing else.

Own SSLContext, TLS 1.3 (1.2 by setting), host name checked; no environment variable, system store or proxy can change
that, because nobody but this file opens the connection. Each failure is told apart, with one sentence that says what
to do.
"""

from __future__ import annotations

import socket
import ssl
import time
from enum import StrEnum

CONNECT_TIMEOUT_S = 15.0


class Fault(StrEnum):
    """Why a connection could not be made."""

    CA_FILE = "ca_file"
    NAME = "name_not_resolved"
    REFUSED = "nothing_listens"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    UNTRUSTED = "untrusted"
    WRONG_NAME = "wrong_name"
    EXPIRED = "expired"
    NOT_TLS = "not_tls"
    PROTOCOL = "tls_version"
    NOT_PINGMON = "not_pingmon"


class ConnectError(Exception):
    """No usable connection; `fault` for machines, the text for people."""

    def __init__(self, fault: Fault, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault


VERSIONS = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}


def client_context(ca_file: str, minimum: str = "1.3") -> ssl.SSLContext:
    """A context that trusts exactly the certificates in `ca_file`; raises ConnectError if there are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # hostname check and CERT_REQUIRED are on
    context.minimum_version = VERSIONS[minimum]
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as err:
        why = err.strerror if not isinstance(err, ssl.SSLError) and err.strerror else "no PEM certificate in it"
        sentence = f"cannot use the CA in {ca_file}: {why}; put the CA certificate of the server there"
        raise ConnectError(Fault.CA_FILE, sentence) from None
    return context


def connect(
    host: str, port: int, context: ssl.SSLContext, ca_file: str, timeout_s: float = CONNECT_TIMEOUT_S
) -> ssl.SSLSocket:
    """A TLS connection to `host:port`, all its addresses tried in turn; raises ConnectError. `ca_file` is for words."""
    deadline = time.monotonic() + timeout_s
    plain = _connect_tcp(host, port, deadline)
    try:
        plain.settimeout(max(0.1, deadline - time.monotonic()))
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ssl.SSLError) as err:
        plain.close()
        raise _tls_error(err, host, port, ca_file, timeout_s) from None


def _connect_tcp(host: str, port: int, deadline: float) -> socket.socket:
    where = f"{host}:{port}"
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        why = getattr(err, "strerror", None) or str(err)
        sentence = f"the name {host} does not resolve ({why}); check server.url and the DNS of this host"
        raise ConnectError(Fault.NAME, sentence) from None
    problem: OSError = TimeoutError()
    for family, kind, protocol, _, address in addresses:
        candidate = socket.socket(family, kind, protocol)
        candidate.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            candidate.connect(address)
            return candidate
        except OSError as err:
            candidate.close()
            problem = err
    raise _tcp_error(problem, where)


def _tcp_error(err: OSError, where: str) -> ConnectError:
    if isinstance(err, ConnectionRefusedError):
        sentence = f"nothing listens on {where}; check that the server runs and that the port in server.url is right"
        return ConnectError(Fault.REFUSED, sentence)
    if isinstance(err, TimeoutError):
        sentence = f"no answer from {where} in time; check the network and firewalls on the way"
        return ConnectError(Fault.TIMEOUT, sentence)
    return ConnectError(Fault.UNREACHABLE, f"cannot reach {where}: {err.strerror}; check the routes of this host")


def _tls_error(err: OSError, host: str, port: int, ca_file: str, timeout_s: float) -> ConnectError:
    where = f"{host}:{port}"
    if isinstance(err, ssl.SSLCertVerificationError):
        return _certificate_error(err, host, where, ca_file)
    if isinstance(err, TimeoutError):
        sentence = f"{where} took the connection but sent no TLS answer in {timeout_s:g} s; check what runs there"
        return ConnectError(Fault.TIMEOUT, sentence)
    reason = getattr(err, "reason", None) or ""
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        sentence = (
            f"{where} does not speak TLS 1.3; upgrade the server or its TLS proxy, or, where 1.2 must do, set "
            "server.minimum_tls"
        )
        return ConnectError(Fault.PROTOCOL, sentence)
    sentence = f"{where} does not speak TLS ({reason or err.strerror or 'connection closed'}); check server.url"
    return ConnectError(Fault.NOT_TLS, sentence)


_VERIFY_EXPIRED = 10
_VERIFY_NOT_YET = 9
_VERIFY_NAMES = (62, 64)  # host name and IP address mismatch, X509_V_ERR_* of OpenSSL


def _certificate_error(err: ssl.SSLCertVerificationError, host: str, where: str, ca_file: str) -> ConnectError:
    if err.verify_code in _VERIFY_NAMES:
        sentence = (
            f"the certificate of {where} is for another name; use a name from it in server.url, or issue one for {host}"
        )
        return ConnectError(Fault.WRONG_NAME, sentence)
    if err.verify_code in (_VERIFY_EXPIRED, _VERIFY_NOT_YET):
        word = "has expired" if err.verify_code == _VERIFY_EXPIRED else "is not valid yet"
        sentence = f"the certificate of {where} {word}; renew it on the server, or correct the clock of this host"
        return ConnectError(Fault.EXPIRED, sentence)
    sentence = (
        f"the certificate of {where} is not trusted by the CA in {ca_file} ({err.verify_message}); "
        "copy the CA certificate of this server there"
    )
    return ConnectError(Fault.UNTRUSTED, sentence)
