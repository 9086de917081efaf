"""The directory (`pingmon.db`): agents, targets, passphrases, audit, in short ORM transactions on the hub.

A transaction never yields: SQLite waits for its lock inside C, where no other green thread could finish the work it
waits for. Must not know: what the states mean, sockets, Flask.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session as OrmSession
from sqlmodel import Session

from . import schema
from .transaction import Transaction, pack_ids, unpack_ids

__all__ = ["Directory", "DirectoryError", "Transaction", "pack_ids", "unpack_ids"]

LOCK_WAIT_S, LOCK_PAUSE_S = 5.0, 0.02


def _begin(session: Session) -> None:
    """Begin at once; while another program holds the lock, try again for LOCK_WAIT_S and let others run meanwhile."""
    give_up = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            session.connection()
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > give_up:
                raise
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def _changes(session: Session) -> int:
    """Rows that this transaction has changed so far; each transaction has a connection of its own."""
    driver: Any = session.connection().connection.dbapi_connection
    return int(driver.total_changes)


class DirectoryError(Exception):
    """The directory could not be read or written; nothing was changed. The text says what to do."""


class Directory:
    """Opens `pingmon.db` and hands out transactions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        setup = schema.open_engine(path)
        schema.upgrade(setup, "directory")
        setup.dispose()
        # Waiting for a lock inside C would stop every green thread: we wait outside, in `_begun`.
        self.engine: Engine = schema.open_engine(path, wait_s=0.0)
        self._patient = schema.open_engine(path, wait_s=2.0)
        # SQLite deletes its -wal and -shm files with the last connection, and on a full disk it could not make them
        # again: then the directory could not even be read.
        self._anchor = sqlite3.connect(path, check_same_thread=False)
        self._anchor.execute("SELECT 1 FROM sqlite_master").fetchall()
        self.trouble: str | None = None  # why the last attempt to change something failed; None once one succeeds

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A transaction that changes nothing. Raises DirectoryError."""
        with self.orm() as session:
            yield Transaction(session)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One decision: alone from its first look to its commit, rolled back on an exception. Raises DirectoryError."""
        with self.orm(write=True) as session:
            yield Transaction(session)

    @contextmanager
    def orm(self, write: bool = False) -> Iterator[Session]:
        """The session under a transaction, for the other files of this folder."""
        engine = schema.for_writing(self.engine) if write else self.engine
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                _begin(session)
                yield session
                session.flush()
                changed = _changes(session)
        except DBAPIError as error:
            if isinstance(error, OperationalError):
                self.trouble = str(error.orig)
            raise DirectoryError(
                f"{self.engine.url.database} cannot be used ({error.orig}) and nothing was changed; try again, and see "
                "that no other program keeps it open and that the disk is not full"
            ) from error
        # Beginning and ending without a change in between would succeed on a full disk, too.
        if changed:
            self.trouble = None

    def look(self) -> None:
        """See whether there is room, and after a failure whether it is over; `trouble` knows then. Never raises."""
        try:
            full = schema.lacks_room(self._path)
        except OSError as error:
            self.trouble = str(error)
            return
        if full:
            self.trouble = schema.NO_ROOM
        elif self.trouble is not None:
            with suppress(DirectoryError), self.transaction() as tx:
                tx.rewrite_revision()

    def pulse(self) -> int:
        """A number that changes with every commit of anybody, in microseconds. Raises DirectoryError."""
        try:
            return int(self._anchor.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise DirectoryError(f"{self._path} cannot be read ({error})") from error

    def session(self) -> OrmSession:
        """A session for Flask-Security, which begins and commits by itself; the caller closes it."""
        return Session(self._patient, expire_on_commit=False)

    def close(self) -> None:
        """Let go of the file."""
        self._anchor.close()
        self.engine.dispose()
        self._patient.dispose()
