"""Opens databases and brings their schema up to date (alembic, one version table per file).

Must not know: what the rows mean.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from .models import DirectoryBase, SamplesBase

_HOME = Path(__file__).parent / "migrations"
METADATA: dict[str, MetaData] = {"directory": DirectoryBase.metadata, "samples": SamplesBase.metadata}


class SchemaError(Exception):
    """The file's schema is not the one this program knows; the text says what to do."""


def open_engine(path: Path) -> Engine:
    """An engine on one SQLite file: WAL, foreign keys, 5 s wait for another program's short transaction."""
    path.touch(mode=0o600, exist_ok=True)
    # No pool: a connection kept by one green thread would be handed to another in the middle of its transaction.
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 5})

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        prepare(connection)

    return engine


def prepare(connection: sqlite3.Connection) -> None:
    """The settings every connection of ours has."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only heeded in a new file, before its first table
    connection.execute("PRAGMA journal_mode=WAL")
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
    cfg = config(which)
    try:
        _upgrade(engine, cfg)
    except DBAPIError as error:
        raise SchemaError(
            f"{engine.url.database} cannot be opened as a database ({error.orig}); "
            "restore it from a backup, or move it away to begin with an empty one"
        ) from error


def _upgrade(engine: Engine, cfg: Config) -> None:
    with engine.begin() as connection:
        known = {script.revision for script in ScriptDirectory.from_config(cfg).walk_revisions()}
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise SchemaError(
                f"{engine.url.database} was written by a newer pingmon (schema {current}); "
                "install that version again or restore a backup made before the upgrade"
            )
        if current == ScriptDirectory.from_config(cfg).get_current_head():
            return
        cfg.attributes["connection"] = connection
        command.upgrade(cfg, "head")
