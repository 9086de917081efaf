"""`pingmon pki`: a small private certificate authority for servers that have no other one.

Needs nothing but `cryptography`: `python -m pingmon.cli.pki` works where the rest of pingmon is not installed.
Must not know: the configuration, the store, sockets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from .pem_files import CERTIFICATE_MODE, STANDARD, write_certificate, write_new
from .pki_authority import LEAF_DAYS, create_authority, issue_leaf, load_authority, sign_request
from .pki_request import install, load_request, make_request
from .pki_show import facts, lines
from .plain import CommandError, dump, fail

Verbs = argparse._SubParsersAction  # the type of what add_subparsers returns; it has no public name
MOST_DAYS = 825  # longer ones are refused by some clients, whoever signed them
AUTHORITY_DIR = "where the authority lives"


def register(subparsers: Verbs[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    parser = subparsers.add_parser("pki", help="make a private certificate authority and server certificates")
    _register_verbs(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """The noun alone, as a program."""
    parser = argparse.ArgumentParser(prog="pingmon pki")
    _register_verbs(parser)
    args = parser.parse_args(argv)
    try:
        return int(args.func(args))
    except CommandError as error:
        return fail(str(error), error.code)


def _register_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make the authority: DIR/ca.pem (give it to agents) and DIR/ca.key (keep it)")
    init.add_argument("--dir", type=Path, required=True, help=AUTHORITY_DIR)
    init.add_argument("--name", default="pingmon private CA", help="common name of the authority")
    init.add_argument("--exist-ok", action="store_true", help="keep an authority that is there, and say so")
    init.set_defaults(func=_init)
    _register_issue(verbs)
    _register_request(verbs)
    _register_sign(verbs)
    _register_install(verbs)
    _register_show(verbs)


def _register_issue(verbs: Verbs[argparse.ArgumentParser]) -> None:
    issue = verbs.add_parser("issue", help="issue a 90-day server certificate, or renew it in its last 30 days")
    issue.add_argument("--dir", type=Path, required=True, help=AUTHORITY_DIR)
    _add_names(issue)
    issue.add_argument("--out-cert", type=Path, required=True, help="where the certificate goes")
    issue.add_argument("--out-key", type=Path, required=True, help="where its private key goes (0600)")
    issue.add_argument("--force", action="store_true", help="replace certificate and key now, whatever is there")
    issue.set_defaults(func=_issue)


def _register_request(verbs: Verbs[argparse.ArgumentParser]) -> None:
    request = verbs.add_parser(
        "request", help="on the server's host: its key (kept, or made 0600) and a request for it"
    )
    _add_names(request)
    request.add_argument("--out-key", type=Path, required=True, help="the server's private key")
    request.add_argument("--out-csr", type=Path, required=True, help="where the request goes; - is standard output")
    request.add_argument("--new-key", action="store_true", help="for a new key, which waits in KEY.new for `install`")
    request.set_defaults(func=_request)


def _register_sign(verbs: Verbs[argparse.ArgumentParser]) -> None:
    sign = verbs.add_parser("sign", help="with the authority: sign a request")
    sign.add_argument("--dir", type=Path, required=True, help=AUTHORITY_DIR)
    sign.add_argument("--csr", type=Path, required=True, help="the request; - is standard input")
    sign.add_argument("--out-cert", type=Path, required=True, help="where the certificate goes; - is standard output")
    sign.add_argument("--days", type=int, default=LEAF_DAYS, help=f"how long it is good for (default {LEAF_DAYS})")
    _add_san(sign, "refuse a request for any other name; repeat it (default: sign what is asked for)")
    sign.set_defaults(func=_sign)


def _register_install(verbs: Verbs[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "install", help="on the server's host: put a signed certificate (and a new key) into place"
    )
    parser.add_argument("--cert", type=Path, required=True, help="the signed certificate")
    parser.add_argument("--out-cert", type=Path, required=True, help="the certificate the server reads")
    parser.add_argument("--out-key", type=Path, required=True, help="its key, as `request` was given it")
    parser.set_defaults(func=_install)


def _register_show(verbs: Verbs[argparse.ArgumentParser]) -> None:
    show = verbs.add_parser("show", help="what a certificate says, and who issued it")
    show.add_argument("file", type=Path, help="PEM file; of a chain, the first certificate")
    anchor = show.add_mutually_exclusive_group()
    anchor.add_argument("--dir", type=Path, help="say whether the authority in this directory issued it")
    anchor.add_argument("--ca", type=Path, help="say whether an authority in this file issued it")
    show.add_argument("--key", type=Path, help="say whether this private key belongs to it")
    show.add_argument("--output", choices=("table", "json"), default="table")
    show.set_defaults(func=_show)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="common name of the server")
    _add_san(parser, "a name or address clients use; repeat it (default: the common name)")


def _add_san(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("--san", action="append", default=[], metavar="dns:NAME|ip:ADDRESS", help=told)


def _init(args: argparse.Namespace) -> int:
    certificate, key = args.dir / "ca.pem", args.dir / "ca.key"
    if args.exist_ok and (certificate.exists() or key.exists()):
        load_authority(args.dir)
        print(f"kept: {certificate}")
        return 0
    create_authority(args.dir, args.name)
    print(f"made {certificate} (the trust anchor of agents) and {key} (keep it secret)")
    return 0


def _issue(args: argparse.Namespace) -> int:
    until, renewed = issue_leaf(
        args.dir, args.name, args.san, out_cert=args.out_cert, out_key=args.out_key, force=args.force
    )
    word = "issued" if renewed else "kept (use --force to replace it)"
    print(f"{word}: {args.out_cert}, valid until {until:%Y-%m-%d %H:%M} UTC")
    return 0


def _request(args: argparse.Namespace) -> int:
    request, key_file, made = make_request(args.name, args.san, args.out_key, new_key=args.new_key)
    pem = request.public_bytes(Encoding.PEM)
    if args.out_csr == STANDARD:
        sys.stdout.write(pem.decode("ascii"))
        return 0
    write_new(args.out_csr, pem, CERTIFICATE_MODE, replace=True)
    print(f"{'made' if made else 'kept'} the key {key_file}; its request is in {args.out_csr}")
    return 0


def _sign(args: argparse.Namespace) -> int:
    if not 1 <= args.days <= MOST_DAYS:
        raise CommandError(f"--days must be 1 to {MOST_DAYS}, not {args.days}", code=2)
    certificate = sign_request(args.dir, load_request(args.csr), expected=args.san, days=args.days)
    write_certificate(args.out_cert, certificate, replace=True)
    if args.out_cert != STANDARD:
        print(f"signed: {args.out_cert}, valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return 0


def _install(args: argparse.Namespace) -> int:
    changed = install(args.cert, args.out_cert, args.out_key)
    print(f"{'installed' if changed else 'kept'}: {args.out_cert}")
    return 0


def _show(args: argparse.Namespace) -> int:
    found = facts(args.file, args.dir / "ca.pem" if args.dir else args.ca, args.key)
    if args.output == "json":
        dump(found)
        return 0
    sys.stdout.writelines(f"{line}\n" for line in lines(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
