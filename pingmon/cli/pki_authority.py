"""The private certificate authority behind `pingmon pki`: what it makes and what it signs.

EC P-256 throughout. The authority and its leaves carry what strict verification (Python 3.13's default) asks for: key
usage, subject and authority key identifiers, critical basic constraints.
Must not know: the configuration, the store, sockets, the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from .pem_files import load_certificate, load_key, make_directory, write_certificate, write_key
from .pki_names import alternative_names, common_name, guess_kind, names_of, spelled
from .pki_request import asked
from .plain import CommandError

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


def create_authority(directory: Path, name: str) -> None:
    """Make `directory`/ca.pem and ca.key. Raises CommandError where either exists."""
    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    for path in (certificate_file, key_file):
        if path.exists():
            raise CommandError(
                f"{path} exists: replacing it would cut off every agent that trusts it; choose another --dir"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = common_name(name)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key.public_key(), datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    make_directory(directory)
    write_key(key_file, key)
    write_certificate(certificate_file, certificate)


def sign_request(
    directory: Path, request: x509.CertificateSigningRequest, *, expected: list[str], days: int = LEAF_DAYS
) -> x509.Certificate:
    """A server certificate for what a request asks for: its name, its names and addresses, its key, and nothing else.

    With `expected` (`dns:NAME` or `ip:ADDRESS`) it may ask for these only. Raises CommandError.
    """
    authority = load_authority(directory)
    wanted = asked(request)
    beyond = [name for name in wanted.names if name not in alternative_names(expected)] if expected else []
    if beyond:
        raise CommandError(
            f"the request is also for {', '.join(spelled(beyond))}, which no --san names: see that it comes from the "
            "right host, then add a --san"
        )
    return _sign_leaf(authority, wanted.name, wanted.names, wanted.public, days)


def issue_leaf(
    directory: Path, name: str, names: list[str], *, out_cert: Path, out_key: Path, force: bool = False
) -> tuple[datetime, bool]:
    """Issue a server certificate, or renew the one at `out_cert` in its last 30 days.

    `names` are `dns:NAME` or `ip:ADDRESS`. A renewal keeps the key, so that a server which reloads at any
    moment finds a matching pair; `force` makes a new key too. Returns (end of validity, whether anything was written).
    """
    authority = load_authority(directory)
    wanted = alternative_names(names or [guess_kind(name)])
    old = None if force else _present(out_cert, out_key, authority, wanted)
    if old is not None and old.not_valid_after_utc - datetime.now(UTC) >= timedelta(days=RENEW_DAYS):
        return old.not_valid_after_utc, False
    key = ec.generate_private_key(ec.SECP256R1()) if old is None else load_key(out_key)
    certificate = _sign_leaf(authority, name, wanted, key.public_key(), LEAF_DAYS)
    for path in (out_cert, out_key):
        make_directory(path.parent)
    if old is None:
        write_key(out_key, key, replace=force)
    write_certificate(out_cert, certificate, replace=force or old is not None)
    return certificate.not_valid_after_utc, True


def load_authority(directory: Path) -> Authority:
    """The authority in `directory`. Raises CommandError where it is missing, unreadable, expired or mismatched."""
    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    if not certificate_file.exists() or not key_file.exists():
        raise CommandError(f"there is no authority in {directory}: make one with `pingmon pki init --dir {directory}`")
    certificate, key = load_certificate(certificate_file), load_key(key_file)
    if certificate.public_key() != key.public_key():
        raise CommandError(f"{key_file} is not the key of {certificate_file}: restore the pair from one backup")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise CommandError(f"{certificate_file} has expired: make a new authority and give its ca.pem to all agents")
    return Authority(certificate, key)


def _present(
    out_cert: Path, out_key: Path, authority: Authority, wanted: list[x509.GeneralName]
) -> x509.Certificate | None:
    """The certificate that a renewal continues; None where there is nothing yet; CommandError where it is another's."""
    if not out_cert.exists() and not out_key.exists():
        return None
    if not out_cert.exists() or not out_key.exists():
        lone = out_key if out_key.exists() else out_cert
        raise CommandError(f"{lone} is there without its other half: remove it, or use --force to replace both")
    certificate = load_certificate(out_cert)
    if certificate.public_key() != load_key(out_key).public_key():
        raise CommandError(f"{out_key} is not the key of {out_cert}: use --force to replace both")
    if not issued_by(certificate, authority.certificate):
        raise CommandError(f"{out_cert} comes from another authority: use --force to replace it and its key")
    if set(names_of(certificate.extensions)) != set(wanted):
        raise CommandError(f"{out_cert} is for other names than asked for: use --force to replace it and its key")
    return certificate


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` itself signed it; an authority above that one is not looked for."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _sign_leaf(
    authority: Authority,
    name: str,
    names: list[x509.GeneralName],
    public: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.Certificate:
    end = min(datetime.now(UTC) + timedelta(days=days), authority.certificate.not_valid_after_utc)
    anchor = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(common_name(name), authority.certificate.subject, public, end)
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
