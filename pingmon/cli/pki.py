"""`pingmon pki`: a small private certificate authority for servers that have no other one.

EC P-256 throughout. The authority and its leaves carry what strict verification (Python 3.13's default) asks for: key
usage, subject and authority key identifiers, critical basic constraints. Private keys are created 0600 and never
overwritten in place.
Must not know: the configuration, the store, sockets.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pingmon.cli.common import CommandError

AUTHORITY_DAYS = 3650
LEAF_DAYS = 90
RENEW_DAYS = 30
# Clocks of agents differ: a certificate that starts a little in the past is valid on all of them at once.
BACKDATE = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A loaded authority: its certificate and its key, known to belong together."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `pki init` and `pki issue` to the command line."""
    parser = subparsers.add_parser("pki", help="make a private certificate authority and server certificates")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make the authority: DIR/ca.pem (give it to agents) and DIR/ca.key (keep it)")
    init.add_argument("--dir", type=Path, required=True, help="where the authority lives")
    init.add_argument("--name", default="pingmon private CA", help="common name of the authority")
    init.set_defaults(func=_init)
    issue = verbs.add_parser("issue", help="issue a 90-day server certificate, or renew it in its last 30 days")
    issue.add_argument("--dir", type=Path, required=True, help="where the authority lives")
    issue.add_argument("--name", required=True, help="common name of the server")
    issue.add_argument(
        "--san",
        action="append",
        default=[],
        metavar="dns:NAME|ip:ADDRESS",
        help="a name or address clients use; repeat it (default: the common name)",
    )
    issue.add_argument("--out-cert", type=Path, required=True, help="where the certificate goes")
    issue.add_argument("--out-key", type=Path, required=True, help="where its private key goes (0600)")
    issue.add_argument("--force", action="store_true", help="replace certificate and key now, whatever is there")
    issue.set_defaults(func=_issue)


def _init(args: argparse.Namespace) -> int:
    create_authority(args.dir, args.name)
    print(f"made {args.dir / 'ca.pem'} (the trust anchor of agents) and {args.dir / 'ca.key'} (keep it secret)")
    return 0


def _issue(args: argparse.Namespace) -> int:
    until, renewed = issue_leaf(
        args.dir, args.name, args.san, out_cert=args.out_cert, out_key=args.out_key, force=args.force
    )
    word = "issued" if renewed else "kept (use --force to replace it)"
    print(f"{word}: {args.out_cert}, valid until {until:%Y-%m-%d %H:%M} UTC")
    return 0


def create_authority(directory: Path, name: str) -> None:
    """Make `directory`/ca.pem and ca.key. Raises CommandError where either exists."""
    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    for path in (certificate_file, key_file):
        if path.exists():
            raise CommandError(
                f"{path} exists: replacing it would cut off every agent that trusts it; choose another --dir"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key.public_key(), datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _make_directory(directory)
    _write_key(key_file, key)
    _write_new(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def issue_leaf(
    directory: Path, name: str, names: list[str], *, out_cert: Path, out_key: Path, force: bool = False
) -> tuple[datetime, bool]:
    """Issue a server certificate, or renew the one at `out_cert` in its last 30 days.

    `names` are `dns:NAME` or `ip:ADDRESS`. A renewal keeps the key, so that a server which reloads at any
    moment finds a matching pair; `force` makes a new key too. Returns (end of validity, whether anything was written).
    """
    authority = load_authority(directory)
    wanted = alternative_names(names or [_guess_kind(name)])
    old = None if force else _present(out_cert, out_key, authority, wanted)
    if old is not None and old.not_valid_after_utc - datetime.now(UTC) >= timedelta(days=RENEW_DAYS):
        return old.not_valid_after_utc, False
    key = ec.generate_private_key(ec.SECP256R1()) if old is None else _load_key(out_key)
    certificate = _sign_leaf(authority, name, wanted, key)
    for path in (out_cert, out_key):
        _make_directory(path.parent)
    if old is None:
        _write_key(out_key, key, replace=force)
    _write_new(out_cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644, replace=force or old is not None)
    return certificate.not_valid_after_utc, True


def load_authority(directory: Path) -> Authority:
    """The authority in `directory`. Raises CommandError where it is missing, unreadable, expired or mismatched."""
    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    if not certificate_file.exists() or not key_file.exists():
        raise CommandError(f"there is no authority in {directory}: make one with `pingmon pki init --dir {directory}`")
    certificate, key = _load_certificate(certificate_file), _load_key(key_file)
    if certificate.public_key() != key.public_key():
        raise CommandError(f"{key_file} is not the key of {certificate_file}: restore the pair from one backup")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise CommandError(f"{certificate_file} has expired: make a new authority and give its ca.pem to all agents")
    return Authority(certificate, key)


def alternative_names(names: list[str]) -> list[x509.GeneralName]:
    """`dns:NAME` / `ip:ADDRESS` words as X.509 names; CommandError names the word that is neither."""
    return [_alternative_name(name) for name in names]


def _alternative_name(word: str) -> x509.GeneralName:
    kind, _, value = word.partition(":")
    try:
        if kind == "ip":
            return x509.IPAddress(ipaddress.ip_address(value))
        if kind == "dns" and value and " " not in value:
            return x509.DNSName(value)
    except ValueError:
        pass  # said below, in one sentence for every kind of mistake
    raise CommandError(f"--san {word!r} is no name: write dns:monitor.example.net or ip:192.0.2.17", code=2)


def _guess_kind(name: str) -> str:
    try:
        return f"ip:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"dns:{name}"


def _present(
    out_cert: Path, out_key: Path, authority: Authority, wanted: list[x509.GeneralName]
) -> x509.Certificate | None:
    """The certificate that a renewal continues; None where there is nothing yet; CommandError where it is another's."""
    if not out_cert.exists() and not out_key.exists():
        return None
    if not out_cert.exists() or not out_key.exists():
        lone = out_key if out_key.exists() else out_cert
        raise CommandError(f"{lone} is there without its other half: remove it, or use --force to replace both")
    certificate = _load_certificate(out_cert)
    if certificate.public_key() != _load_key(out_key).public_key():
        raise CommandError(f"{out_key} is not the key of {out_cert}: use --force to replace both")
    if not _issued_by(certificate, authority):
        raise CommandError(f"{out_cert} comes from another authority: use --force to replace it and its key")
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(found) != set(wanted):
        raise CommandError(f"{out_cert} is for other names than asked for: use --force to replace it and its key")
    return certificate


def _issued_by(certificate: x509.Certificate, authority: Authority) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _sign_leaf(
    authority: Authority, name: str, names: list[x509.GeneralName], key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    end = min(datetime.now(UTC) + timedelta(days=LEAF_DAYS), authority.certificate.not_valid_after_utc)
    anchor = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(_common_name(name), authority.certificate.subject, key.public_key(), end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(anchor), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    if not 1 <= len(name) <= 64:
        raise CommandError("--name must be 1 to 64 characters long; longer names go into --san", code=2)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise CommandError(f"{path} is no PEM certificate: restore it, or remove it and issue a new one") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):
        raise CommandError(f"{path} is no PEM private key without password: restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CommandError(f"{path} is no EC key: this small authority works with EC P-256 keys only")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path} ({error.strerror}): run this as the user who owns it") from None


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make {path} ({error.strerror}): choose a directory you may write to") from None


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, *, replace: bool = False) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_new(path, pem, 0o600, replace=replace)


def _write_new(path: Path, content: bytes, mode: int, *, replace: bool = False) -> None:
    """Write a file that did not exist before; with `replace`, under another name first and then in one step over it."""
    target = path.with_name(f".{path.name}.{os.getpid()}") if replace else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            target.replace(path)
    except OSError as error:
        raise CommandError(f"cannot write {path} ({error.strerror}): choose a place you may write to") from None
