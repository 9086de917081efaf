"""The host's side of a certificate: its key, its request, and taking over what the authority made of that.

The key never leaves the host. Must not know: the authority's key, the configuration, the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .pem_files import load_certificates, load_key, make_directory, read, write_certificate, write_key
from .pki_names import alternative_names, common_name, guess_kind, names_of, spelled
from .plain import CommandError

AGAIN = "make it anew with `pingmon pki request`"


@dataclass(frozen=True)
class Asked:
    """What a request asks for, checked."""

    name: str
    names: list[x509.GeneralName]
    public: ec.EllipticCurvePublicKey


def waiting(key_file: Path) -> Path:
    """Where a new key waits for its certificate, beside the one that is still served."""
    return key_file.with_name(key_file.name + ".new")


def make_request(
    name: str, words: list[str], key_file: Path, *, new_key: bool = False
) -> tuple[x509.CertificateSigningRequest, Path, bool]:
    """A request for a server certificate: (request, the key's file, whether that key was made now).

    An existing key is kept. With `new_key` another one is made beside it (`waiting`), so that what is served stays a
    pair until `install`. Raises CommandError.
    """
    subject, names = common_name(name), alternative_names(words or [guess_kind(name)])
    path = waiting(key_file) if new_key and key_file.exists() else key_file
    made = path != key_file or not path.exists()
    key = ec.generate_private_key(ec.SECP256R1()) if made else load_key(path)
    if made:
        make_directory(path.parent)
        write_key(path, key, replace=path != key_file)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()), path, made


def load_request(path: Path) -> x509.CertificateSigningRequest:
    """A request from a file, or from standard input for `-`. Raises CommandError."""
    try:
        return x509.load_pem_x509_csr(read(path))
    except ValueError:
        raise CommandError(f"{path} is no PEM certificate request: {AGAIN}") from None


def asked(request: x509.CertificateSigningRequest) -> Asked:
    """What the request asks for; raises CommandError where that cannot be signed."""
    try:
        good, public, names = request.is_signature_valid, request.public_key(), names_of(request.extensions)
        names = alternative_names(spelled(names))
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, CommandError):
        raise CommandError(f"the request holds names or a key that no server has: {AGAIN}") from None
    if not good:
        raise CommandError(f"the request is not signed by the key in it: {AGAIN}")
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != ec.SECP256R1.name:
        raise CommandError(f"the request is for a key that is not EC P-256: {AGAIN}")
    subject = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(subject) != 1 or not names:
        raise CommandError(f"the request has no common name or no alternative names: {AGAIN}")
    return Asked(str(subject[0].value), names, public)


def install(certificate_file: Path, out_cert: Path, out_key: Path) -> bool:
    """Put a new certificate into place, with the key it was made for; returns whether anything changed.

    Both are whole before either is renamed, and the second rename follows at once: a server takes over a pair only
    when it has been left alone for a second. Cut off between the two, the same call again finishes it. Raises
    CommandError.
    """
    chain = load_certificates(certificate_file)
    fresh = waiting(out_key)
    if out_key.exists() and _belong(chain[0], out_key):
        if out_cert.exists() and load_certificates(out_cert) == chain:
            return False
        write_certificate(out_cert, *chain, replace=True)
        return True
    if not fresh.exists() or not _belong(chain[0], fresh):
        raise CommandError(
            f"the certificate in {certificate_file} is neither for {out_key} nor for {fresh}: sign the newest request"
        )
    write_key(fresh, load_key(fresh), replace=True, like=out_key)
    staged = waiting(out_cert)
    make_directory(out_cert.parent)
    write_certificate(staged, *chain, replace=True, like=out_cert)
    _rename((fresh, out_key), (staged, out_cert))
    return True


def _belong(certificate: x509.Certificate, key_file: Path) -> bool:
    return certificate.public_key() == load_key(key_file).public_key()


def _rename(*pairs: tuple[Path, Path]) -> None:
    try:
        for source, target in pairs:
            source.replace(target)
    except OSError as error:
        raise CommandError(
            f"cannot rename {source} to {target} ({error.strerror}): see that both are on one file system, then run "
            "this again"
        ) from None
