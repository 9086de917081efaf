"""The server's certificate and key: what is refused, and with which sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pingmon import tls
from pingmon.cli.pki_authority import create_authority, issue_leaf
from tests.agent.certificates import Authority


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca", "test CA")
    for name in ("one", "two"):
        issue_leaf(
            tmp_path / "ca",
            name,
            ["dns:localhost"],
            out_cert=tmp_path / f"{name}.pem",
            out_key=tmp_path / f"{name}.key",
        )
    return tmp_path


def refusal(certificate: Path, key: Path) -> str:
    with pytest.raises(tls.TlsError) as caught:
        tls.check_pair(certificate, key)
    return str(caught.value)


def test_a_pair_is_accepted(home: Path) -> None:
    """A leaf with its own key gives a context and its names."""
    assert tls.check_pair(home / "one.pem", home / "one.key").names == ("localhost",)
    assert tls.Served(home / "one.pem", home / "one.key").context.minimum_version is tls.VERSIONS["1.3"]


def test_foreign_key_is_refused(home: Path) -> None:
    """A certificate does not start with somebody else's key."""
    assert refusal(home / "one.pem", home / "two.key") == (
        f"certificate {home}/one.pem does not belong to key {home}/two.key; "
        "issue both together with `pingmon pki issue`"
    )


def test_missing_certificate_is_refused(home: Path) -> None:
    """A path that leads nowhere is named."""
    assert refusal(home / "no.pem", home / "one.key") == (
        f"certificate {home}/no.pem does not exist; make one with `pingmon pki issue` or correct the path"
    )


def test_unreadable_key_is_refused(home: Path) -> None:
    """A key this user may not read is named, not a traceback."""
    if os.geteuid() == 0:  # root may read everything: a directory is what it cannot read as a file
        (home / "dir.key").mkdir()
        assert refusal(home / "one.pem", home / "dir.key") == (
            f"key {home}/dir.key cannot be read (Is a directory); give this user read permission"
        )
        return
    (home / "one.key").chmod(0)
    assert refusal(home / "one.pem", home / "one.key") == (
        f"key {home}/one.key cannot be read (Permission denied); give this user read permission"
    )


def test_nonsense_is_refused(home: Path) -> None:
    """Files that are no PEM are named, each with its way out."""
    (home / "x").write_text("x")
    assert refusal(home / "x", home / "one.key") == (
        f"certificate {home}/x is not a PEM certificate; convert it or issue a new one"
    )
    assert refusal(home / "one.pem", home / "x") == (
        f"key {home}/x is not an unencrypted PEM private key; issue it without a password"
    )


def test_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    """No agent would connect: better said before the old one is given up."""
    leaf = Authority(tmp_path / "ca").issue("localhost", expired=True)

    said = refusal(Path(leaf.certificate), Path(leaf.key))
    assert said.startswith(f"certificate {leaf.certificate} expired on ")
    assert said.endswith("; renew it with `pingmon pki issue`")
