"""A new certificate is taken over without a restart, and a bad one is not: contexts alone, and a server per mode."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pingmon import tls
from pingmon.cli.pki_authority import create_authority, issue_leaf, load_authority
from tests.support.processes import running_agent, running_server, wait_for
from tests.support.web import Session

Serial = int
NAMES = ["dns:localhost", "ip:127.0.0.1"]


class Files:
    """An authority, the pair in use, and ways to replace it."""

    def __init__(self, home: Path) -> None:
        self.home, self.certificate, self.key = home, home / "server.pem", home / "server.key"
        if not (home / "ca").exists():
            create_authority(home / "ca", "test CA")
            self.issue()

    def issue(self) -> None:
        """Another certificate with another key."""
        issue_leaf(self.home / "ca", "localhost", NAMES, out_cert=self.certificate, out_key=self.key, force=True)

    def issue_rsa(self) -> None:
        """One with another kind of key, as an authority of the company might give."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        authority, now = load_authority(self.home / "ca"), datetime.now(UTC)
        anchor = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=5))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(anchor), critical=False)
            .sign(authority.key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(pem, form, none))
        self.certificate.write_bytes(leaf.public_bytes(pem))

    def serial(self) -> Serial:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number


def serial_of(tls_socket: ssl.SSLSocket | ssl.SSLObject) -> Serial:
    der = tls_socket.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def handshake(context: ssl.SSLContext, home: Path, name: str | None = "localhost") -> Serial:
    """The serial number of the certificate that a client is shown, with a server name in its hello or without."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(home / "ca" / "ca.pem")
    client.check_hostname = name is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (near, far, near, far):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return serial_of(near)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def look_twice(served: tls.Served) -> None:
    served.look()
    served.look()


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("replace", [Files.issue, Files.issue_rsa])
def test_a_new_pair_is_served_to_the_next_client(
    files: Files, replace: Callable[[Files], None], name: str | None
) -> None:
    """Also one with another kind of key, and also to a client that names no server."""
    served = tls.Served(files.certificate, files.key)
    first, before = files.serial(), handshake(served.context, files.home, name)
    replace(files)
    look_twice(served)

    assert before == first
    assert handshake(served.context, files.home, name) == files.serial() != first
    assert (served.reloads, served.failures, served.trouble) == (1, 0, None)


def test_a_pair_is_taken_over_only_once_it_is_left_alone(files: Files) -> None:
    """Between the two files of a pair nothing is loaded, so nothing fails and nothing is said."""
    served = tls.Served(files.certificate, files.key)
    halves = files.home / "new"
    halves.mkdir()
    shutil.copytree(files.home / "ca", halves / "ca")
    new = Files(halves)
    new.issue()
    shutil.copy(new.certificate, files.certificate)
    served.look()
    between = handshake(served.context, files.home)
    shutil.copy(new.key, files.key)
    look_twice(served)

    assert served.failures == 0
    assert between != files.serial() == handshake(served.context, files.home)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_bad_file_leaves_the_old_pair_in_use_and_says_so(files: Files, content: bytes | None) -> None:
    """Once, not at every look; and the next good pair ends it."""
    served = tls.Served(files.certificate, files.key)
    first = files.serial()
    if content is None:
        files.certificate.unlink()
    else:
        files.certificate.write_bytes(content)
    for _ in range(5):
        served.look()

    assert handshake(served.context, files.home) == first
    assert served.failures == 1
    assert "the certificate that was loaded before stays in use" in str(served.trouble)
    assert served.warning() == served.trouble
    files.certificate.unlink(missing_ok=True)
    files.issue()
    look_twice(served)
    assert (served.trouble, served.warning()) == (None, None)
    assert handshake(served.context, files.home) == files.serial()


def test_a_signal_loads_at_once(files: Files) -> None:
    """Without waiting for the files to rest."""
    served = tls.Served(files.certificate, files.key)
    files.issue()
    served.ask()
    served.look()

    assert handshake(served.context, files.home) == files.serial()


def test_the_lowest_version_stays(files: Files) -> None:
    """What is served changes, not how: an old client is refused before and after."""
    served = tls.Served(files.certificate, files.key)
    files.issue()
    look_twice(served)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(files.home / "ca" / "ca.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, works in ((served.context, False), (tls.Served(files.certificate, files.key, "1.2").context, True)):
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = old.wrap_bio(to_client, to_server, server_hostname="localhost")
        far = context.wrap_bio(to_server, to_client, server_side=True)
        with pytest.raises(ssl.SSLWantReadError):
            near.do_handshake()
        expected = ssl.SSLWantReadError if works else ssl.SSLError
        with pytest.raises(expected) as caught:
            far.do_handshake()
        assert isinstance(caught.value, ssl.SSLWantReadError) is works


@pytest.mark.parametrize(
    ("days", "sentence"),
    [(15, None), (13.2, "ends in 13 days, on"), (0.5, "ends within a day, on"), (-1, "ended on")],
)
def test_administrators_are_warned_two_weeks_before_the_end(files: Files, days: float, sentence: str | None) -> None:
    """With what to do."""
    served = tls.Served(files.certificate, files.key)
    late = tls.Served(files.certificate, files.key, now=lambda: served.chain.not_after - days * 86_400)

    said = late.warning()
    assert said is None if sentence is None else str(said).startswith(f"The certificate of this server {sentence} ")


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["eventlet", "gevent", "threading"])
def test_a_running_server_takes_a_new_certificate_over(tmp_path: Path, mode: str) -> None:
    """Its agent's connection lives on, new clients see the new one; administrators are told of a bad file."""
    with running_server(tmp_path / "server", mode=mode) as server:
        files = Files(server.directory)
        server.session()
        with running_agent(server, tmp_path / "agent", "probe-1") as agent:
            agent.approve()
            first = shown_by(server.port, server.ca_file)
            files.issue_rsa()
            wait_for(lambda: shown_by(server.port, server.ca_file) == files.serial(), "the new certificate")
            second, page = files.serial(), front_page(server.session())
            files.certificate.write_text("nonsense")
            assert server.child is not None
            os.kill(server.child.process.pid, signal.SIGHUP)
            wait_for(lambda: "stays in use" in front_page(server.session()), "the banner")

            assert first != second == shown_by(server.port, server.ca_file)
            assert "ends in 5 days" in page or "ends in 4 days" in page
            metrics = server.session().request("/metrics")[1]
            assert "pingmon_server_tls_reload_failures_total 1.0" in metrics
            assert 'pingmon_server_agent_connected{agent="probe-1"} 1.0' in metrics
            assert (server.directory / "server.log").read_text().count("agent connected agent=probe-1") == 1


def shown_by(port: int, ca_file: Path) -> Serial:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return serial_of(secured)


def front_page(session: Session) -> str:
    return str(session.request("/agents")[1])
