"""Has files written through to the disk, once a second at most, from a thread of its own: a slow disk delays no round.

Must not know: what is in the files.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

EVERY_S = 1.0
_STOP_S = 1.0


class Flusher:
    """Told by `dirty` what was written; says by `failure` what could not be flushed."""

    def __init__(self, directory: Path, every_s: float = EVERY_S) -> None:
        self._directory, self._every_s = directory, every_s
        self._lock = threading.Lock()
        self._dirty: set[Path] = set()
        self._failed: OSError | None = None
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.flushes = 0

    def dirty(self, path: Path) -> None:
        """`path` has been written."""
        with self._lock:
            self._dirty.add(path)
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
            self._thread.start()

    def failure(self) -> OSError | None:
        """What went wrong since the last time this was asked."""
        with self._lock:
            failed, self._failed = self._failed, None
        return failed

    @property
    def died(self) -> bool:
        """Whether the thread was started and is gone: nothing is flushed any more."""
        return self._thread is not None and not self._thread.is_alive() and not self._stopping.is_set()

    def stop(self) -> None:
        """Flush what is left, and end; a disk that hangs holds up nobody for longer than a second."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            self._flush()
            self._stopping.wait(self._every_s)
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            paths, self._dirty = self._dirty, set()
        try:
            for path in paths:
                with suppress(FileNotFoundError):  # expired meanwhile
                    _sync(path)
            _sync(self._directory)  # else a file that is new may have no name after a power cut
        except OSError as err:
            with self._lock:
                self._failed = err
        self.flushes += 1


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
