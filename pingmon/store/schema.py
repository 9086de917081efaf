"""Opens databases and brings their schema up to date (alembic, one version table per file).

Must not know: what the rows mean.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from .models import DirectoryBase
from .sample_tables import SamplesBase

_HOME = Path(__file__).parent / "migrations"
METADATA: dict[str, MetaData] = {"directory": DirectoryBase.metadata, "samples": SamplesBase.metadata}


class SchemaError(Exception):
    """The file's schema is not the one this program knows; the text says what to do."""


def open_engine(path: Path, wait_s: float = 5.0) -> Engine:
    """An engine on one SQLite file: WAL, foreign keys, `wait_s` of waiting inside C for another program's transaction.

    Its transactions begin deferred; those of `for_writing(engine)` hold the write lock from their first statement on,
    so that what they read stays true until they commit.
    """
    if not path.exists() or not path.stat().st_size:
        _create(path)
    # No pool: a connection kept by one green thread would be handed to another in the middle of its transaction.
    # No isolation level: the driver would begin a transaction at the first write only, after what decides it was read.
    arguments = {"timeout": wait_s, "isolation_level": None}
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        prepare(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def for_writing(engine: Engine) -> Engine:
    """The same engine, for transactions that decide something."""
    return engine.execution_options(writes=True)


def _create(path: Path) -> None:
    """A new file with the settings that live in the file itself; asking for them later would wait for every lock."""
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only heeded before the first table
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


# A small write may still find a place in SQLite's own files on a full disk, the next larger one does not: with less
# than this the disk counts as full, so that "full" and "well again" do not take turns.
ROOM_BYTES = 1 << 20
NO_ROOM = "less than 1 MiB is free on its disk"


def lacks_room(path: Path) -> bool:
    """Whether the disk of this file is as good as full."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize < ROOM_BYTES


def prepare(connection: sqlite3.Connection) -> None:
    """The settings every connection of ours has."""
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def config(which: str) -> Config:
    """Alembic's configuration for "directory" or "samples"."""
    cfg = Config()
    cfg.set_main_option("script_location", str(_HOME).replace("%", "%%"))
    cfg.set_main_option("version_locations", str(_HOME / which).replace("%", "%%"))
    cfg.set_main_option("path_separator", "newline")
    cfg.attributes["metadata"] = METADATA[which]
    return cfg


def upgrade(engine: Engine, which: str) -> None:
    """Create or upgrade the schema; raises SchemaError for a file that a newer pingmon wrote, or that is none."""
    try:
        _upgrade(engine, which)
    except DBAPIError as error:
        raise SchemaError(
            f"{engine.url.database} cannot be opened as a database ({' '.join(str(error.orig).split())}); "
            "restore a backup with `pingmon restore FILE`, or move it away to begin with an empty one"
        ) from error


@cache
def _revisions(which: str) -> tuple[str, ...]:
    """What this program knows, newest first. Read once: alembic compiles and runs every migration for it."""
    return tuple(script.revision for script in ScriptDirectory.from_config(config(which)).walk_revisions())


def _upgrade(engine: Engine, which: str) -> None:
    known = _revisions(which)
    with for_writing(engine).begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise SchemaError(
                f"{engine.url.database} was written by a newer pingmon (schema {current}); "
                "install that version again or restore a backup made before the upgrade"
            )
        if current == known[0]:
            return
        cfg = config(which)
        cfg.attributes["connection"] = connection
        command.upgrade(cfg, "head")
