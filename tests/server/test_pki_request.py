"""`pingmon pki request|sign|install|show`: a key that never leaves its host, and a certificate for it.

The commands run as a play runs them: as programs, with nothing but `cryptography` to import.
"""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pingmon.cli import pki, pki_authority
from pingmon.tls import Served, check_pair
from pingmon_agent.tls import ConnectError, Fault, client_context, connect

from .test_pki import handshake

ROOT = Path(__file__).parents[2]
NAMES = ("--name", "monitor", "--san", "dns:localhost", "--san", "ip:127.0.0.1", "--san", "ip:::1")
# What a controller does not have: importing one of these there fails as it fails here.
ABSENT = "sqlmodel sqlalchemy alembic flask flask_socketio flask_security eventlet gevent apscheduler argon2 socketio"
ALONE = """
import runpy, sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None
sys.meta_path.insert(0, Absent())
sys.argv[0] = "pki"
runpy.run_module("pingmon.cli.pki", run_name="__main__")
"""


def alone(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m pingmon.cli.pki WORDS` without the packages of the server."""
    program = ALONE.format(absent=set(ABSENT.split()))
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=ROOT, timeout=60)


def ok(*words: object, stdin: str = "") -> str:
    done = alone(*words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def call(*words: object) -> int:
    """The same in this process."""
    return pki.main([str(word) for word in words])


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    capsys.readouterr()
    assert call("show", *words, "--output", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    pki_authority.create_authority(tmp_path / "ca", "test CA")
    return tmp_path


def request(home: Path, *more: str, names: tuple[str, ...] = NAMES) -> int:
    return call("request", *names, "--out-key", home / "leaf.key", "--out-csr", home / "leaf.csr", *more)


def sign(home: Path, *more: str, authority: str = "ca") -> int:
    return call("sign", "--dir", home / authority, "--csr", home / "leaf.csr", "--out-cert", home / "signed.pem", *more)


def install(home: Path) -> int:
    return call(
        "install", "--cert", home / "signed.pem", "--out-cert", home / "leaf.pem", "--out-key", home / "leaf.key"
    )


def served(home: Path) -> None:
    """A first pair, in place."""
    assert (request(home), sign(home), install(home)) == (0, 0, 0)


def test_a_controller_with_cryptography_alone_signs_for_a_host(tmp_path: Path) -> None:
    """Each step works as a program without the server's packages, through standard input and output as plays do it."""
    key, certificate = tmp_path / "leaf.key", tmp_path / "leaf.pem"
    assert ok("init", "--dir", tmp_path / "ca", "--exist-ok").startswith("made ")
    asked = ok("request", *NAMES, "--out-key", key, "--out-csr", "-")

    certificate.write_text(ok("sign", "--dir", tmp_path / "ca", "--csr", "-", "--out-cert", "-", stdin=asked))

    for name in ("localhost", "127.0.0.1", "::1"):
        handshake(tmp_path, name)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    found = json.loads(ok("show", certificate, "--dir", tmp_path / "ca", "--key", key, "--output", "json"))
    assert (found["issued_by_ca"], found["key_matches"], found["days_left"]) == (True, True, 89)


def test_the_guard_of_that_test_works() -> None:
    """The packages are really out of reach there: another noun of the command line cannot be imported."""
    program = ALONE.format(absent=set(ABSENT.split())).replace("pingmon.cli.pki", "pingmon.cli.agents")

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert "ModuleNotFoundError" in done.stderr


def test_init_again_keeps_the_authority(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --exist-ok an authority is kept, byte for byte, and the word for it is said; half of one is an error."""
    before = [(home / "ca" / name).read_bytes() for name in ("ca.pem", "ca.key")]

    assert call("init", "--dir", home / "ca", "--exist-ok") == 0
    assert capsys.readouterr().out == f"kept: {home}/ca/ca.pem\n"
    assert [(home / "ca" / name).read_bytes() for name in ("ca.pem", "ca.key")] == before

    (home / "ca/ca.key").unlink()
    assert call("init", "--dir", home / "ca", "--exist-ok") == 1
    assert not (home / "ca/ca.key").exists()


def test_a_signed_leaf_is_like_an_issued_one(home: Path) -> None:
    """Same extensions in the same criticality, whoever made the key; nothing of the request but its names."""
    served(home)
    pki_authority.issue_leaf(
        home / "ca", "x", ["dns:localhost"], out_cert=home / "issued.pem", out_key=home / "issued.key"
    )
    signed, issued = (x509.load_pem_x509_certificate((home / f).read_bytes()) for f in ("signed.pem", "issued.pem"))

    assert [(e.oid, e.critical) for e in signed.extensions] == [(e.oid, e.critical) for e in issued.extensions]
    assert signed.subject.rfc4514_string() == "CN=monitor"
    assert timedelta(days=89) < signed.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=90)


def test_request_and_sign_again_keep_the_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A renewal is for the same key: the certificate alone is exchanged."""
    served(home)
    key, first = (home / "leaf.key").read_bytes(), (home / "leaf.pem").read_bytes()
    capsys.readouterr()

    assert (request(home), sign(home, "--days", "30"), install(home)) == (0, 0, 0)

    assert f"kept the key {home}/leaf.key" in capsys.readouterr().out
    assert (home / "leaf.key").read_bytes() == key
    assert (home / "leaf.pem").read_bytes() != first
    assert shown(capsys, home / "leaf.pem")["days_left"] == 29
    handshake(home, "localhost")


def test_install_again_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same certificate again is kept, and said to be."""
    served(home)
    before = (home / "leaf.pem").stat()
    capsys.readouterr()

    assert install(home) == 0

    assert capsys.readouterr().out == f"kept: {home}/leaf.pem\n"
    assert (home / "leaf.pem").stat().st_ino == before.st_ino


def test_a_new_key_waits_beside_the_old_until_its_certificate_is_there(home: Path) -> None:
    """Until `install` the served pair is untouched; after it both are new, with the rights the old ones had."""
    served(home)
    (home / "leaf.key").chmod(0o640)
    (home / "leaf.pem").chmod(0o640)
    old = (home / "leaf.key").read_bytes()

    assert (request(home, "--new-key"), sign(home)) == (0, 0)
    assert (home / "leaf.key").read_bytes() == old
    check_pair(home / "leaf.pem", home / "leaf.key")
    assert stat.S_IMODE((home / "leaf.key.new").stat().st_mode) == 0o600

    assert install(home) == 0
    assert (home / "leaf.key").read_bytes() != old
    check_pair(home / "leaf.pem", home / "leaf.key")
    handshake(home, "localhost")
    assert [stat.S_IMODE((home / f).stat().st_mode) for f in ("leaf.key", "leaf.pem")] == [0o640, 0o640]
    assert sorted(p.name for p in home.iterdir()) == ["ca", "leaf.csr", "leaf.key", "leaf.pem", "signed.pem"]


def test_an_exchange_that_was_cut_off_is_finished_by_the_same_call(home: Path) -> None:
    """Killed between its two renames, `install` run again leaves a pair."""
    served(home)
    assert (request(home, "--new-key"), sign(home)) == (0, 0)
    (home / "leaf.key.new").replace(home / "leaf.key")  # all that the first call had come to

    assert install(home) == 0

    handshake(home, "localhost")


def test_a_chain_is_installed_whole(home: Path) -> None:
    """Authorities in between stand behind the leaf and stay there."""
    assert (request(home), sign(home)) == (0, 0)
    with (home / "signed.pem").open("a") as file:
        file.write((home / "ca/ca.pem").read_text())

    assert install(home) == 0

    assert (home / "leaf.pem").read_bytes() == (home / "signed.pem").read_bytes()


def test_a_key_that_others_may_read_does_not_stay_so(home: Path) -> None:
    """What is taken over of the old key's mode ends at its group."""
    served(home)
    (home / "leaf.key").chmod(0o666)

    assert (request(home, "--new-key"), sign(home), install(home)) == (0, 0, 0)

    assert stat.S_IMODE((home / "leaf.key").stat().st_mode) == 0o640


def test_show_tells_by_whom(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two authorities in one file either will do; another one is told apart, as is another key."""
    served(home)
    pki_authority.create_authority(home / "other", "test CA")
    both = home / "both.pem"
    both.write_bytes((home / "other/ca.pem").read_bytes() + (home / "ca/ca.pem").read_bytes())

    found = shown(capsys, home / "leaf.pem", "--ca", both, "--key", home / "leaf.key")
    assert (found["issued_by_ca"], found["key_matches"]) == (True, True)
    assert found["names"] == ["dns:localhost", "ip:127.0.0.1", "ip:::1"]
    assert (found["subject"], found["issuer"]) == ("CN=monitor", "CN=test CA")
    assert found["not_after"] - found["not_before"] == 90 * 86400 + 3600  # type: ignore[operator]

    found = shown(capsys, home / "leaf.pem", "--dir", home / "other", "--key", home / "ca/ca.key")
    assert (found["issued_by_ca"], found["key_matches"]) == (False, False)
    found = shown(capsys, home / "leaf.pem")
    assert (found["issued_by_ca"], found["key_matches"]) == (None, None)


def test_show_for_people(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table says what was asked, and leaves out what was not."""
    served(home)
    capsys.readouterr()

    assert call("show", home / "leaf.pem", "--dir", home / "ca") == 0

    said = capsys.readouterr().out
    assert "names                     dns:localhost, ip:127.0.0.1, ip:::1\n" in said
    assert "issued by that authority  yes\n" in said
    assert "belongs" not in said


def rsa_request(home: Path) -> None:
    _write(home, _builder("monitor", "localhost").sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()))


def nameless_request(home: Path) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject("monitor"))
    _write(home, builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))


def odd_request(home: Path) -> None:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("https://monitor")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject("monitor")).add_extension(names, False)
    _write(home, builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))


def changed_request(home: Path) -> None:
    """A name is exchanged after the signature."""
    request(home)
    csr = x509.load_pem_x509_csr((home / "leaf.csr").read_bytes())
    changed = csr.public_bytes(serialization.Encoding.DER).replace(b"localhost", b"localhosu")
    _write(home, x509.load_der_x509_csr(changed))


def garbage(home: Path) -> None:
    (home / "leaf.csr").write_text("nothing")


def greedy_request(home: Path) -> None:
    request(home, names=("--name", "monitor", "--san", "dns:localhost", "--san", "dns:other.example.net"))


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(name: str, san: str) -> x509.CertificateSigningRequestBuilder:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    return builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)


def _write(home: Path, csr: x509.CertificateSigningRequest) -> None:
    (home / "leaf.csr").write_bytes(csr.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (rsa_request, "the request is for a key that is not EC P-256: {again}"),
        (nameless_request, "the request has no common name or no alternative names: {again}"),
        (odd_request, "the request holds names or a key that no server has: {again}"),
        (changed_request, "the request is not signed by the key in it: {again}"),
        (garbage, "{home}/leaf.csr is no PEM certificate request: {again}"),
        (
            greedy_request,
            "the request is also for dns:other.example.net, which no --san names: see that it comes from the right "
            "host, then add a --san",
        ),
    ],
)
def test_what_is_not_signed(
    home: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], sentence: str
) -> None:
    """Each with a sentence, and no certificate is written."""
    make(home)
    capsys.readouterr()

    assert sign(home, "--san", "dns:localhost") == 1

    again = "make it anew with `pingmon pki request`"
    assert capsys.readouterr().err == f"pingmon: {sentence.format(home=home, again=again)}\n"
    assert not (home / "signed.pem").exists()


@pytest.mark.parametrize("rotating", [False, True])
def test_install_refuses_a_certificate_of_another_key(
    home: Path, capsys: pytest.CaptureFixture[str], rotating: bool
) -> None:
    """The served pair stays as it is, also while a new key waits."""
    served(home)
    if rotating:
        request(home, "--new-key")
    before = (home / "leaf.pem").read_bytes()
    pki_authority.issue_leaf(home / "ca", "x", [], out_cert=home / "signed2.pem", out_key=home / "x.key")
    (home / "signed2.pem").replace(home / "signed.pem")
    capsys.readouterr()

    assert install(home) == 1

    assert "is neither for" in capsys.readouterr().err
    assert (home / "leaf.pem").read_bytes() == before


def test_days_have_a_limit(home: Path) -> None:
    """A validity that clients refuse is refused at once, as wrong usage."""
    request(home)

    assert [sign(home, "--days", days) for days in ("0", "826", "825")] == [2, 2, 0]


@pytest.fixture
def listener(home: Path) -> Iterator[int]:
    """A server with the pair in `home` as it is at each connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(home, listening))
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()


def answer(home: Path, listening: socket.socket) -> None:
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with peer, suppress(OSError), Served(home / "leaf.pem", home / "leaf.key").context.wrap_socket(peer, True):
            pass


@pytest.mark.parametrize("issuer", ["ca", "new"])
def test_an_agent_with_two_authorities_takes_a_server_of_either(home: Path, listener: int, issuer: str) -> None:
    """While authorities of one name are exchanged: `ca_file` holds both; one alone takes its own only."""
    pki_authority.create_authority(home / "new", "test CA")
    assert (request(home), sign(home, authority=issuer), install(home)) == (0, 0, 0)
    old, new = (home / "ca/ca.pem").read_text(), (home / "new/ca.pem").read_text()

    for both in (old + new, new + old):
        (home / "both.pem").write_text(both)
        connect("127.0.0.1", listener, client_context(str(home / "both.pem")), "both.pem").close()

    other = str(home / ("new" if issuer == "ca" else "ca") / "ca.pem")
    with pytest.raises(ConnectError) as refused:
        connect("127.0.0.1", listener, client_context(other), other)
    assert refused.value.fault is Fault.UNTRUSTED
