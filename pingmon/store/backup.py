"""`pingmon backup` and `pingmon restore`: one file with both databases, made while the server runs.

samples.db is pictured first, then pingmon.db: a round refers to a target set, never the other way round, and sets are
written before the rounds that need them and dropped an hour after the last of these. In the other order a set made
between the two pictures would be missing for rounds that are there.
Secrets (pepper, session key) are not in it: whoever steals a backup can neither enrol nor sign in.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from . import schema
from .check import DIRECTORY, SAMPLES, Findings, check, integrity, reader
from .lock import UNFINISHED, held

FORMAT = 1
MANIFEST = "manifest.json"
# A megabyte at a time, then a breath: the disk belongs to the server.
STEP_PAGES, PAUSE_S = 256, 0.005
_BLOCK = 1 << 20


_NAME = re.compile(r"pingmon-\d{8}T\d{6}Z\.tar", re.ASCII)


class BackupError(Exception):
    """The backup could not be made or used, and nothing was changed; the text says what to do."""


@dataclass(frozen=True)
class Restored:
    """What a restore put in place, and where it laid what was there before (None: nothing was)."""

    created_ms: int
    found: Findings
    aside: Path | None


# -- backup --


def name_of(now_ms: int) -> str:
    """The file of a backup that is made now, in a directory of backups."""
    return f"pingmon-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_ms / 1000))}.tar"


def backups(folder: Path) -> list[Path]:
    """The files in a directory that are named like backups, oldest first; nothing else, and no links."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def backup(data_dir: Path, file: Path, now_ms: int) -> int:
    """Write `file` whole or not at all; returns its size in bytes. Raises BackupError, OSError."""
    missing = [name for name in (SAMPLES, DIRECTORY) if not (data_dir / name).exists()]
    if missing:
        raise BackupError(f"there is no {missing[0]} in {data_dir}; name the server's own configuration with --config")
    if file.exists():
        raise BackupError(f"{file} exists already; name another file, or a directory")
    with tempfile.TemporaryDirectory(prefix=".pingmon-backup-", dir=file.parent) as name:
        work = Path(name)
        try:
            _copy_both(data_dir, work)
        except sqlite3.Error as error:
            raise BackupError(f"{data_dir} cannot be read ({error}); `pingmon db check` says more") from error
        whole = work / "whole"
        _pack(work, whole, now_ms)
        whole.replace(file)
    _sync(file.parent)
    return file.stat().st_size


def _copy_both(data_dir: Path, work: Path) -> None:
    with closing(_pictured(data_dir / SAMPLES)) as samples, closing(_pictured(data_dir / DIRECTORY)) as directory:
        for db, name in ((samples, SAMPLES), (directory, DIRECTORY)):
            with closing(sqlite3.connect(work / name)) as copy:
                db.backup(copy, pages=STEP_PAGES, progress=lambda *_: time.sleep(PAUSE_S))


def _pictured(path: Path) -> sqlite3.Connection:
    """A connection whose picture stands still: the copy is not begun anew whenever the server commits."""
    db = reader(path)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM alembic_version").fetchall()
    return db


def _pack(work: Path, whole: Path, now_ms: int) -> None:
    manifest = {
        "format": FORMAT,
        "created_ms": now_ms,
        "version": version("pingmon"),
        "files": {
            name: {"bytes": (work / name).stat().st_size, "sha256": _digest(work / name)}
            for name in (DIRECTORY, SAMPLES)
        },
    }
    text = json.dumps(manifest, indent=2).encode()
    with whole.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_member(MANIFEST, len(text), now_ms), io.BytesIO(text))
            for name in (DIRECTORY, SAMPLES):
                with (work / name).open("rb") as data:
                    tar.addfile(_member(name, (work / name).stat().st_size, now_ms), data)
                (work / name).unlink()
        out.flush()
        os.fsync(out.fileno())


def _member(name: str, size: int, now_ms: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, now_ms // 1000, 0o600
    return member


def _digest(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


# -- restore --


def restore(file: Path, data_dir: Path, now_ms: int, actor: str) -> Restored:
    """Put a backup in the place of what is in `data_dir`. Raises BackupError, LockError, SchemaError, OSError.

    The backup is checked whole before anything is touched; what it replaces is laid aside, not deleted.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(data_dir, mend=True), tempfile.TemporaryDirectory(prefix=".restore-", dir=data_dir) as name:
        work = Path(name)
        created_ms = _unpack(file, work)
        found = _sound(file, work)
        _new_lineage(work / DIRECTORY, file, now_ms, actor)
        for database in (DIRECTORY, SAMPLES):
            _settle(work / database)
        return Restored(created_ms, found, _swap(work, data_dir, now_ms))


def _unpack(file: Path, work: Path) -> int:
    try:
        with tarfile.open(file, "r:") as tar:
            manifest = json.loads(_open(tar, MANIFEST).read(_BLOCK))
            if manifest["format"] != FORMAT:
                raise BackupError(
                    f"{file} was made by a newer pingmon ({manifest['version']}); restore it with that one"
                )
            for name in (DIRECTORY, SAMPLES):
                _take(tar, name, work / name, manifest["files"][name])
            return int(manifest["created_ms"])
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{file} is no whole backup of pingmon ({error}); use another one") from error


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    data = tar.extractfile(name)
    if data is None:
        raise ValueError(f"{name} is no file in it")
    return data


def _take(tar: tarfile.TarFile, name: str, place: Path, told: dict[str, Any]) -> None:
    with _open(tar, name) as data, place.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        shutil.copyfileobj(data, out, _BLOCK)
        out.flush()
        os.fsync(out.fileno())
    if place.stat().st_size != told["bytes"] or _digest(place) != told["sha256"]:
        raise ValueError(f"{name} in it is not what was written")


def _sound(file: Path, work: Path) -> Findings:
    """The databases of a backup, of an older schema maybe, brought up to date and looked through."""
    for name, which in ((DIRECTORY, "directory"), (SAMPLES, "samples")):
        with closing(reader(work / name)) as db:
            problems = integrity(db, name)
        if problems:
            raise BackupError(f"{file} cannot be restored: {problems[0]}; use another one")
        engine = schema.open_engine(work / name)
        schema.upgrade(engine, which)
        engine.dispose()
    found = check(work)
    if found.problems:
        raise BackupError(f"{file} cannot be restored: {found.problems[0]}; use another one")
    return found


def _new_lineage(directory: Path, file: Path, now_ms: int, actor: str) -> None:
    """Let every agent's target sets go on under numbers that were never given to anybody.

    Agents may hold rounds of sets that were made after the backup. If the next set got the number of one of those, such
    rounds would be taken for measurements of other targets. The clock cannot have been here before, and no server made
    a set every second since 1970; rounds of the forgotten sets are then refused (E_TARGET) and counted as given up.
    """
    with closing(sqlite3.connect(directory)) as db, db:
        db.execute(
            "INSERT INTO target_sets (agent_no, revision, target_ids, created_ms)"
            " SELECT a.no, max(coalesce(s.revision, 0) + 1, :now / 1000), coalesce(s.target_ids, x''), :now"
            " FROM agents a LEFT JOIN target_sets s ON s.agent_no = a.no"
            " AND s.revision = (SELECT max(revision) FROM target_sets WHERE agent_no = a.no)"
            " WHERE a.deleted_ms IS NULL",
            {"now": now_ms},
        )
        db.execute(
            "INSERT INTO audit (at_ms, actor, action, subject) VALUES (?,?,?,?)",
            (now_ms, actor, "restore", file.name[:255]),
        )
        db.execute("UPDATE directory_revision SET revision = revision + 1")


def _settle(database: Path) -> None:
    """Bring what is in the log into the file and end the log, so that the file is whole by itself."""
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _swap(work: Path, data_dir: Path, now_ms: int) -> Path | None:
    aside = data_dir / f"replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_ms / 1000))}-{now_ms % 1000:03d}"
    marker = data_dir / UNFINISHED
    marker.touch(mode=0o600)
    aside.mkdir(mode=0o700)
    _sync(data_dir)
    for name in (SAMPLES, DIRECTORY):
        # A log that stayed would be played into the new file.
        for old in (data_dir / f"{name}-wal", data_dir / f"{name}-shm", data_dir / name):
            if old.exists():
                old.replace(aside / old.name)
        (work / name).replace(data_dir / name)
    _sync(aside)
    _sync(data_dir)
    marker.unlink()
    if any(aside.iterdir()):
        return aside
    aside.rmdir()
    return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
