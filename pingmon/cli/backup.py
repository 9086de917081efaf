"""`pingmon backup` and `pingmon restore`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pingmon import config as settings
from pingmon.services.clock import SystemClock
from pingmon.store import backup as store
from pingmon.store.last_backup import NAME, LastBackup, note
from pingmon.store.lock import LockError
from pingmon.store.schema import SchemaError

from .common import actor, add_config
from .plain import CommandError

# Lives beside the databases, but not inside a backup.
SECRETS = {"pepper": "make all passphrases anew", "identity.key": "give every agent the new pin"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    maker = subparsers.add_parser("backup", help="write both databases into one file, while the server runs")
    maker.add_argument("place", type=Path, metavar="DIR-or-FILE", help="a directory, or a file that does not exist yet")
    maker.add_argument("--keep", type=int, metavar="N", help="then remove all but the newest N of that directory")
    maker.set_defaults(func=_backup)
    restorer = subparsers.add_parser(
        "restore", help="put a backup in the place of the databases; the server must be stopped"
    )
    restorer.add_argument("file", type=Path, metavar="FILE")
    restorer.set_defaults(func=_restore)
    for parser in (maker, restorer):
        add_config(parser)


def _backup(args: argparse.Namespace) -> int:
    config, now = settings.load(args.config), SystemClock().wall_ms()
    file: Path = args.place
    if args.keep is not None and (args.keep < 1 or not file.is_dir()):
        raise CommandError("--keep is for a directory, and keeps 1 or more", code=2)
    if file.is_dir():
        file = file / store.name_of(now)
    with _sentences():
        size = store.backup(config.data_dir, file, now)
    sys.stdout.write(f"{file} {size} bytes\n")
    _note(config.data_dir, LastBackup(now, str(file.absolute()), size))
    if args.keep is not None:
        with _sentences():
            for old in store.backups(file.parent)[: -args.keep]:
                old.unlink()
                sys.stdout.write(f"{old} removed\n")
    return 0


def _note(data_dir: Path, last: LastBackup) -> None:
    """For `status` and `doctor`; a backup that was made is one, whether or not that can be noted."""
    try:
        note(data_dir, last)
    except OSError as error:
        sys.stderr.write(
            f"the backup is whole, but {data_dir}/{NAME} cannot be written ({error.strerror}), so `pingmon status` "
            "does not know of it\n"
        )


def _restore(args: argparse.Namespace) -> int:
    config = settings.load(args.config)
    with _sentences():
        done = store.restore(args.file, config.data_dir, SystemClock().wall_ms(), actor())
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(done.created_ms / 1000))
    rounds = done.found.raw_rounds + done.found.compacted_rounds
    sys.stdout.write(f"{config.data_dir} is as it was at {made}: {done.found.agents} agents, {rounds} rounds\n")
    sys.stderr.write(
        "what was decided after that (approved, rejected, revoked, changed) is undone: look through the agents\n"
    )
    if done.aside is not None:
        sys.stderr.write(f"what was there before lies in {done.aside}; delete it when all is well\n")
    for name, otherwise in SECRETS.items():
        if not (file := config.data_dir / name).exists():
            sys.stderr.write(
                f"there is no {file}: copy it from the old host before the server starts, or {otherwise}\n"
            )
    return 0


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (store.BackupError, LockError, SchemaError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"{error.filename or 'the file'} cannot be used ({error.strerror}); see to the rights and the space there"
        ) from error
