"""The directory that the ring keeps its rounds in: a segment file for each minute, one lock, one writer.

The file `lock` is held while the agent lives, and names the segment that is being written. Only if that one is the
newest there and whole, all numbers of its epoch are known, and the epoch may go on after a restart. A write that fails
makes the journal unhealthy, never an exception: the ring goes on in memory and asks again by `retry`.
Must not know: what is acknowledged, what a round means. Called by one thread at a time (the ring holds its lock).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import re
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import segments
from .boot import boot_name
from .flush import Flusher
from .loading import Found, Segment, Shelf, load
from .log import say
from .segments import Block

_log = logging.getLogger(__name__)
_POINTER = "{pid:>10} {boot} {number:012d}\n"
_POINTS = re.compile(r" *([0-9]+) ([0-9a-f]{16}) ([0-9]{12})\n")
SEGMENT_S = 60.0
RETRY_S = 10.0
# A segment is also closed at this part of the maximum, so that making room never costs more than that.
_PARTS = 16
States = Callable[[float], Iterable[Block]]


class BusyError(Exception):
    """Another agent has this directory; the text says what to do."""


@dataclass
class JournalCounts:
    """Since the start."""

    damaged: int = 0  # stretches of a file that are no blocks
    set_aside: int = 0  # files
    failures: int = 0  # writes, and other calls to the file system


def wall_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


class Journal:
    """Blocks on files. `healthy`: what is put now will be on file; else `reason` says why not."""

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        *,
        durable: bool = False,
        boot: bytes | None = None,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        """All files together never exceed `max_bytes`. `durable`: fsync, once a second, from a thread of its own."""
        self.directory, self.max_bytes, self.boot = directory, max_bytes, boot or b""
        self._known_boot, self._wall = boot, wall
        self._shelf = Shelf()
        self._lock_fd = self._fd = self._minute = -1
        self._highest = self._begun = 0
        self._retry_at = 0.0
        self._catching_up = False
        self.flusher = Flusher(directory) if durable else None
        self.healthy, self.reason = True, ""
        self.size = 0
        self.counts = JournalCounts()

    @property
    def oldest(self) -> int:
        """Number of the oldest segment there is, 0 if none is."""
        return self._shelf.segments[0].number if self._shelf.segments else 0

    @property
    def highest(self) -> int:
        """The highest number of a segment so far."""
        return self._highest

    # -- begin, begin again, end --

    def start(self, now: float) -> Found | None:
        """Take the directory and read it; None if it cannot be used now. Raises BusyError if another agent has it."""
        try:
            return self._take(now)
        except OSError as err:
            self._fail(err, now)
        return None

    def retry(self, now: float) -> Found | None:
        """After a failure, every RETRY_S: not None if writing may work again. Then put what is not on file yet, and
        say `caught_up`."""
        if now < self._retry_at:
            return None
        self._retry_at = now + RETRY_S
        try:
            found = Found(anew=False) if self._still_ours() else self._take(now)
        except (OSError, BusyError) as err:
            self._fail(err, now)
            return None
        self._catching_up = True
        return found

    def caught_up(self, now: float) -> bool:
        """All that the ring holds is on file: a restart may rely on it from here on."""
        try:
            self._point(self._highest)
        except OSError as err:
            self._fail(err, now)
            return False
        self._catching_up = False
        if not self.healthy:
            self.healthy, self.reason = True, ""
            _log.info(say("rounds are kept on file again", directory=self.directory))
        return True

    def close(self) -> None:
        """Let go of the directory, for good."""
        self.healthy, self.reason, self._retry_at = False, "the agent is ending", math.inf
        self._close()
        if self.flusher is not None:
            self.flusher.stop()
        self._unlock()

    def _still_ours(self) -> bool:
        if self._lock_fd < 0:
            return False
        with suppress(FileNotFoundError):  # the directory was removed below us: as good as never taken
            here, ours = (self.directory / "lock").stat(), os.fstat(self._lock_fd)
            return (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino)
        return False

    def _take(self, now: float) -> Found:
        self._close()
        self._unlock()
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            boot, pointer = self._lock()
            self.boot = self._known_boot or boot_name(self.directory, boot)
            known = pointer if boot == self.boot else -1
            self._shelf = load(self.directory, pointer=known, boot=self.boot, now=now, wall_ms=self._wall())
            self._note(boot or self.boot, pointer)
        except BaseException:
            self._unlock()
            raise
        self._highest, self.size = self._shelf.highest, self._shelf.size
        self.counts.damaged += self._shelf.damaged
        self.counts.set_aside += self._shelf.set_aside
        found, self._shelf.found = self._shelf.found, Found()
        return found

    def _lock(self) -> tuple[bytes, int]:
        """(boot, number) that the pointer names; raises BusyError."""
        words = _POINTS.fullmatch(os.pread(self._lock_fd, 64, 0).decode(errors="replace"))
        pid, boot, number = words.groups() if words else ("", "", "0")
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another agent (process {pid or 'unknown'}) keeps its rounds in {self.directory}; stop it, or give "
                'this one a directory of its own by agent.buffer_dir, or set agent.buffer = "memory"'
            ) from None
        return bytes.fromhex(boot), int(number)

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _point(self, number: int) -> None:
        self._note(self.boot, number)

    def _note(self, boot: bytes, number: int) -> None:
        os.pwrite(self._lock_fd, _POINTER.format(pid=os.getpid(), boot=boot.hex(), number=number).encode(), 0)

    # -- writing --

    def put(self, block: Block, states: States) -> int:
        """Write a block, and return the number of its segment; 0 if that failed. `states(at)` are the blocks that a new
        segment begins with."""
        if not self.healthy and not self._catching_up:
            return 0
        first, samples = segments.pack(block)
        size = len(first) + 4 * len(samples)
        try:
            self._have_room(size, block.at, states)
            _write(self._fd, (first, samples), size)
        except OSError as err:
            self._fail(err, block.at)
            return 0
        segment = self._shelf.segments[-1]
        segment.size += size
        segment.newest_at = block.at
        self.size += size
        if self.flusher is not None:
            self.flusher.dirty(segment.path)
        return segment.number

    def end_segment(self) -> None:
        """Let the next block begin a segment."""
        self._close()

    def _have_room(self, size: int, at: float, states: States) -> None:
        """Have a segment open for a block of `at`, and no more than the maximum on file when it is written."""
        if self.flusher is not None and (failed := self.flusher.failure()) is not None:
            raise failed
        full = self._fd >= 0 and self._shelf.segments[-1].size + size > self.max_bytes // _PARTS
        if self._fd < 0 or full or int(at // SEGMENT_S) != self._minute:
            self._begin(at, segments.head() + b"".join(segments.pack(state)[0] for state in states(at)), size)
        self._make_room(size)

    def _make_room(self, size: int) -> None:
        kept, aside = self._shelf.segments, self._shelf.aside
        while self.size + size > self.max_bytes and (aside or len(kept) > 1):
            self._drop(aside or kept)

    def _begin(self, at: float, start: bytes, size: int) -> None:
        self._close()
        self._make_room(len(start) + size)
        number = self._highest + 1
        path = Segment.named(self.directory, number)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        segment = Segment(number, path, 0, at)
        self._shelf.segments.append(segment)
        self._highest, self._minute = number, int(at // SEGMENT_S)
        _write(self._fd, (start,), len(start))
        segment.size = self._begun = len(start)
        self.size += len(start)
        if not self._catching_up:
            self._point(number)

    # -- letting go --

    def expire(self, oldest_at: float, now: float) -> None:
        """Unlink segments with nothing younger than `oldest_at`; the newest stays, as it tells the numbers."""
        kept = self._shelf.segments
        self._drop_while(lambda: len(kept) > 1 and kept[0].newest_at < oldest_at, now)

    def drop_upto(self, number: int, now: float) -> None:
        """Unlink all segments up to `number`."""
        kept = self._shelf.segments
        if kept and kept[-1].number <= number:
            self._close()
        self._drop_while(lambda: bool(kept) and kept[0].number <= number, now)

    def _drop_while(self, due: Callable[[], bool], now: float) -> None:
        try:
            while (self.healthy or self._catching_up) and due():
                self._drop(self._shelf.segments)
        except OSError as err:
            self._fail(err, now)

    def _drop(self, line: deque[Segment]) -> None:
        with suppress(FileNotFoundError):  # somebody cleaned up: what we wanted
            line[0].path.unlink()
        self.size -= line.popleft().size

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fail(self, err: Exception, now: float) -> None:
        """Leave no half block behind if that is possible; if not, the next start finds it and begins a new epoch."""
        self.counts.failures += 1
        if self._fd >= 0:
            segment = self._shelf.segments[-1]
            with suppress(OSError):  # the second failure of one write tells nothing new
                os.ftruncate(self._fd, segment.size)
                if segment.size == 0 or (self._catching_up and segment.size == self._begun):
                    self._drop(deque([self._shelf.segments.pop()]))  # attempts leave nothing behind
            self._close()
        self._retry_at, self._catching_up = max(self._retry_at, now + RETRY_S), False
        reason = (err.strerror if isinstance(err, OSError) else None) or str(err)
        if self.healthy or reason != self.reason:
            facts = {"directory": self.directory, "reason": reason}
            _log.warning(say("rounds cannot be written and are kept in memory only", **facts))
        self.healthy, self.reason = False, reason


def _write(fd: int, parts: tuple[bytes | array[int], ...], size: int) -> None:
    """All of it or OSError: a regular file takes less only where the disk is full."""
    if os.writev(fd, parts) != size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
