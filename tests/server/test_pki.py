"""`pingmon pki`: what it makes is accepted by strict TLS, what it refuses it says in a sentence."""

from __future__ import annotations

import argparse
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pingmon.cli import pki, pki_authority
from pingmon.cli.plain import CommandError

NAMES = ["dns:localhost", "ip:127.0.0.1", "ip:::1"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    pki_authority.create_authority(tmp_path / "ca", "test CA")
    return tmp_path


def issue(home: Path, names: list[str] = NAMES, *, force: bool = False) -> tuple[datetime, bool]:
    return pki_authority.issue_leaf(
        home / "ca", "localhost", names, out_cert=home / "leaf.pem", out_key=home / "leaf.key", force=force
    )


def handshake(home: Path, hostname: str, anchor: str = "ca/ca.pem") -> None:
    """A whole TLS 1.3 handshake in memory; raises ssl.SSLError where the client refuses the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(home / "leaf.pem", home / "leaf.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(home / anchor)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (near, far, near, far):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert near.version() == "TLSv1.3"


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "::1"])
def test_strict_client_accepts_each_name(home: Path, hostname: str) -> None:
    """A client with VERIFY_X509_STRICT accepts the leaf under every name that was asked for."""
    issue(home)

    handshake(home, hostname)


def test_other_names_are_not_covered(home: Path) -> None:
    """The leaf is refused under a name that was not asked for."""
    issue(home)

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(home, "monitor.example.net")


def test_another_authority_is_refused(home: Path) -> None:
    """A client that trusts another authority of the same name refuses the leaf."""
    issue(home)
    pki_authority.create_authority(home / "other", "test CA")

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(home, "localhost", anchor="other/ca.pem")


def test_keys_are_private(home: Path) -> None:
    """Both private keys are readable by their owner alone, whatever the umask says."""
    issue(home)

    modes = {name: stat.S_IMODE((home / name).stat().st_mode) for name in ("ca/ca.key", "leaf.key")}

    assert modes == {"ca/ca.key": 0o600, "leaf.key": 0o600}


def test_the_leaf_says_what_it_is_for(home: Path) -> None:
    """The leaf lasts 90 days, cannot sign, is for servers, and names its issuer's key."""
    until, written = issue(home)
    leaf = x509.load_pem_x509_certificate((home / "leaf.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((home / "ca/ca.pem").read_bytes())

    def value(kind: type[x509.ExtensionType], certificate: x509.Certificate = leaf) -> x509.ExtensionType:
        return certificate.extensions.get_extension_for_class(kind).value

    assert written
    assert timedelta(days=89) < until - datetime.now(UTC) <= timedelta(days=90)
    assert value(x509.BasicConstraints).ca is False
    assert list(value(x509.ExtendedKeyUsage)) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]
    assert value(x509.AuthorityKeyIdentifier).key_identifier == value(x509.SubjectKeyIdentifier, authority).digest
    assert value(x509.KeyUsage, authority).key_cert_sign


def test_second_issue_changes_nothing(home: Path) -> None:
    """Issuing again long before the end writes nothing and tells the same end."""
    first, _ = issue(home)
    before = (home / "leaf.pem").read_bytes(), (home / "leaf.key").read_bytes()

    assert issue(home) == (first, False)
    assert ((home / "leaf.pem").read_bytes(), (home / "leaf.key").read_bytes()) == before


def test_last_thirty_days_renew_and_keep_the_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its last 30 days a certificate is renewed for the same key, so no reload ever sees a broken pair."""
    monkeypatch.setattr(pki_authority, "LEAF_DAYS", 29)
    short, _ = issue(home)
    monkeypatch.undo()
    key = (home / "leaf.key").read_bytes()

    until, written = issue(home)

    assert written
    assert until - short > timedelta(days=60)
    assert (home / "leaf.key").read_bytes() == key
    handshake(home, "localhost")


def test_force_makes_a_new_pair(home: Path) -> None:
    """--force replaces certificate and key, leaves a matching pair and no other file."""
    issue(home)
    key = (home / "leaf.key").read_bytes()

    issue(home, ["dns:localhost"], force=True)

    assert (home / "leaf.key").read_bytes() != key
    assert sorted(path.name for path in home.iterdir()) == ["ca", "leaf.key", "leaf.pem"]
    handshake(home, "localhost")


def test_a_leaf_never_outlives_its_authority(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf of an authority that ends sooner ends with it."""
    monkeypatch.setattr(pki_authority, "AUTHORITY_DAYS", 40)
    pki_authority.create_authority(home / "short", "short CA")

    until, _ = pki_authority.issue_leaf(home / "short", "x", [], out_cert=home / "x.pem", out_key=home / "x.key")

    assert until - datetime.now(UTC) <= timedelta(days=40)


def refuse_second_authority(home: Path) -> None:
    pki_authority.create_authority(home / "ca", "again")


def refuse_missing_authority(home: Path) -> None:
    pki_authority.load_authority(home / "nowhere")


def refuse_foreign_key(home: Path) -> None:
    pki_authority.create_authority(home / "other", "other")
    (home / "other/ca.key").replace(home / "ca/ca.key")
    pki_authority.load_authority(home / "ca")


def refuse_other_names(home: Path) -> None:
    issue(home)
    issue(home, ["dns:elsewhere"])


def refuse_other_authority(home: Path) -> None:
    issue(home)
    pki_authority.create_authority(home / "new", "test CA")
    (home / "new").rename(home / "swap")
    (home / "ca").rename(home / "old")
    (home / "swap").rename(home / "ca")
    issue(home)


def refuse_lone_half(home: Path) -> None:
    issue(home)
    (home / "leaf.pem").unlink()
    issue(home)


def refuse_garbage_key(home: Path) -> None:
    (home / "ca/ca.key").write_text("not a key")
    pki_authority.load_authority(home / "ca")


def refuse_san(home: Path) -> None:
    issue(home, ["localhost"])


def refuse_bad_address(home: Path) -> None:
    issue(home, ["ip:300.1.2.3"])


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (
            refuse_second_authority,
            "{home}/ca/ca.pem exists: replacing it would cut off every agent that trusts it; choose another --dir",
        ),
        (
            refuse_missing_authority,
            "there is no authority in {home}/nowhere: make one with `pingmon pki init --dir {home}/nowhere`",
        ),
        (
            refuse_foreign_key,
            "{home}/ca/ca.key is not the key of {home}/ca/ca.pem: restore the pair from one backup",
        ),
        (
            refuse_other_names,
            "{home}/leaf.pem is for other names than asked for: use --force to replace it and its key",
        ),
        (
            refuse_other_authority,
            "{home}/leaf.pem comes from another authority: use --force to replace it and its key",
        ),
        (
            refuse_lone_half,
            "{home}/leaf.key is there without its other half: remove it, or use --force to replace both",
        ),
        (
            refuse_garbage_key,
            "{home}/ca/ca.key is no PEM private key without password: restore it from a backup",
        ),
        (refuse_san, "--san 'localhost' is no name: write dns:monitor.example.net or ip:192.0.2.17"),
        (refuse_bad_address, "--san 'ip:300.1.2.3' is no name: write dns:monitor.example.net or ip:192.0.2.17"),
    ],
)
def test_each_refusal_is_one_sentence(home: Path, attempt: object, sentence: str) -> None:
    """Every refusal names the file or word at fault and what to do next."""
    with pytest.raises(CommandError) as refused:
        attempt(home)  # type: ignore[operator]

    assert str(refused.value) == sentence.format(home=home)


def test_the_two_commands_of_the_manual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pki init` and `pki issue` with the documented flags make a working pair and say where it is."""
    parser = argparse.ArgumentParser()
    pki.register(parser.add_subparsers())
    leaf = ["--out-cert", str(tmp_path / "leaf.pem"), "--out-key", str(tmp_path / "leaf.key")]
    san = ["--san", "dns:localhost", "--san", "ip:127.0.0.1"]
    for words in (["init"], ["issue", "--name", "localhost", *san, *leaf]):
        args = parser.parse_args(["pki", words[0], "--dir", str(tmp_path / "ca"), *words[1:]])
        assert args.func(args) == 0

    said = capsys.readouterr().out

    assert f"made {tmp_path}/ca/ca.pem" in said
    assert f"issued: {tmp_path}/leaf.pem, valid until " in said
    handshake(tmp_path, "localhost")
