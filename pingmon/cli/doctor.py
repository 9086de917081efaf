"""`pingmon doctor`: what a server needs on its host, looked at one by one, each fault with its mend.

Nothing is changed. Must not know: how the server does its work.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from pingmon import config as settings
from pingmon import tls
from pingmon.config import Config, ConfigError
from pingmon.store.check import DIRECTORY, SAMPLES, reader
from pingmon.store.last_backup import known

from .agents_rows import ago
from .asking import Answer, address_of, ask
from .common import add_config
from .pem_files import load_certificates
from .pki_authority import issued_by
from .plain import CommandError, shown

SECRETS = ("identity.key", "pepper", "session-key")
DAY_S, GIB = 86_400, 1 << 30
BACKUP_DAYS = 2  # daily, and one may fail


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend`: what to do about it; empty where it is well."""

    what: str
    mend: str = ""

    def line(self) -> str:
        """As printed."""
        return f"MEND  {self.what}: {self.mend}" if self.mend else f"ok    {self.what}"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("doctor", help="look at all a server needs here, and print what to mend")
    add_config(parser)
    parser.set_defaults(func=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    well = True
    for finding in findings(args.config):
        sys.stdout.write(shown(finding.line()) + "\n")
        well = well and not finding.mend
    return 0 if well else 1


def findings(path: Path) -> Iterator[Finding]:
    """Look at everything; what depends on something broken is left out."""
    try:
        config = settings.load(path)
    except ConfigError as error:
        yield Finding("configuration", str(error))
        return
    yield Finding(f"configuration {path}, reached at {config.public_url}")
    yield from certificate(config)
    yield from directory(config)
    yield listener(config, ask(config))


def certificate(config: Config) -> Iterator[Finding]:
    """Pair, chain, names and time left."""
    file = Path(config.tls.certificate)
    try:
        pair = tls.check_pair(file, Path(config.tls.key))
        chain = load_certificates(file)
    except (tls.TlsError, CommandError) as error:
        yield Finding("certificate", str(error))
        return
    days = int((pair.not_after - time.time()) // DAY_S)
    mend = "" if days >= tls.WARN_DAYS else "renew it: `pingmon pki issue`, or whoever issued it; no restart is needed"
    yield Finding(f"certificate {file}, {days} days left", mend)
    broken = next((n for n, (one, above) in enumerate(pairwise(chain), 1) if not issued_by(one, above)), None)
    if broken is not None:
        yield Finding(f"certificate {file}", f"number {broken} in it was not issued by the next; put the leaf first, "
                      "then each issuer in turn")  # fmt: skip
    host = urlsplit(config.server.public_url).hostname
    if host and not tls_covers(pair.names, host):
        yield Finding(f"certificate {file}", f"it is for {', '.join(pair.names)}, not for {host} of server.public_url; "
                      "issue it for that name, too")  # fmt: skip


def tls_covers(names: tuple[str, ...], host: str) -> bool:
    """Whether one of a certificate's names is this host, or a `*.` of the domain it is in."""
    return host in names or f"*.{host.partition('.')[2]}" in names


def directory(config: Config) -> Iterator[Finding]:
    """Rights, disk, databases, backup."""
    place = config.data_dir
    if not place.is_dir():
        yield Finding(f"data directory {place}", "it does not exist; the first start makes it where its user may")
        return
    facts = place.stat()
    if facts.st_uid != os.geteuid():
        name = _user(facts.st_uid)
        yield Finding(f"data directory {place} is that of {name}", f"run this as {name} (`runuser -u {name} -- ...`)")
        return
    open_to_others = [p for p in (place, *(place / name for name in SECRETS)) if p.exists() and p.stat().st_mode & 0o77]
    files = " ".join(map(str, open_to_others))
    yield Finding(f"data directory {place}, for its user only", files and f"others may read: `chmod go= {files}`")
    free = shutil.disk_usage(place).free
    mend = "" if free >= GIB else "make room: on a full disk nothing is stored, and nothing acknowledged"
    yield Finding(f"{free / GIB:.1f} GiB are free on its disk", mend)
    for name in (DIRECTORY, SAMPLES):
        yield database(place / name)
    yield last_backup(place)


def database(path: Path) -> Finding:
    """Whether it opens. All of it is read by `pingmon db check` only."""
    if not path.exists():
        return Finding(f"{path.name} is made at the first start")
    try:
        with closing(reader(path)) as db:
            [[revision]] = db.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.Error, ValueError) as error:
        return Finding(path.name, f"it cannot be read ({error}); `pingmon db check`, then `pingmon restore FILE`")
    return Finding(f"{path.name} opens, schema {revision}")


def last_backup(data_dir: Path) -> Finding:
    """Whether it is younger than two days; who has just begun has none yet."""
    last, begun = known(data_dir), data_dir / "identity.key"
    mend = "make one with `pingmon backup DIR`, daily; see `systemctl status pingmon-backup.timer`"
    if last is None:
        fresh = not begun.exists() or time.time() - begun.stat().st_mtime < BACKUP_DAYS * DAY_S
        return Finding("no backup yet", "" if fresh else mend)
    age_s = max(0.0, time.time() - last.at_ms / 1000)
    return Finding(f"last backup {ago(age_s)}, {last.file}", "" if age_s < BACKUP_DAYS * DAY_S else mend)


def listener(config: Config, answer: Answer) -> Finding:
    """The server that runs is ready; where none runs, its port is free."""
    where = f"{address_of(config)} port {config.server.port}"
    if answer.why is None:
        return Finding(f"the server is ready at {where}")
    if answer.runs:
        return Finding("the server is not ready", answer.why)
    family = socket.AF_INET6 if ":" in config.server.listen else socket.AF_INET
    try:
        socket.create_server((config.server.listen, config.server.port), family=family).close()
    except OSError as error:
        return Finding(f"{where} cannot be used", f"{error.strerror}; set another server.listen or server.port")
    return Finding(f"no server runs, and {where} is free")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
