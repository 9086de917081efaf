"""Debian trees for the hosts, made once a week or when their recipe changes, kept under /var/cache/pingmon-testbed.

    with_images = prepare({"bookworm", "trixie"})       {"bookworm": Path(...), "trixie": Path(...)}

A tree in use is locked until the process (and what it becomes) ends, so that no other run removes it. Must not know:
what the trees are for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "images/image.sh"
# What can be installed from the tree's own /srv/apt without a network.
OFFLINE = {"bullseye": (), "bookworm": ("prometheus",), "trixie": ()}
_UNUSED_S = 8 * 86400
_ROOM_FOR_TWO_KIB = 2 * 2**20


class ImageError(Exception):
    """An image could not be made; the text says what to do."""


def cache() -> Path:
    """Where images are kept: PINGMON_TESTBED_CACHE, or /var/cache/pingmon-testbed."""
    return Path(os.environ.get("PINGMON_TESTBED_CACHE", "/var/cache/pingmon-testbed"))


def prepare(suites: Iterable[str]) -> dict[str, Path]:
    """A tree for each Debian suite, made where it is missing."""
    wanted = {suite: cache() / f"{suite}-{_key(suite)}" for suite in suites}
    with making():
        for tree in wanted.values():
            hold(tree)
        missing = [suite for suite, tree in wanted.items() if not tree.is_dir()]
        with ThreadPoolExecutor(2 if _free_kib() > _ROOM_FOR_TWO_KIB else 1) as pool:
            list(pool.map(lambda suite: _make(suite, wanted[suite]), missing))
        sweep()
    return wanted


@contextmanager
def making() -> Iterator[None]:
    """One at a time on this machine: a second run waits here instead of making the same again."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "making.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hold(tree: Path) -> None:
    """Keep `tree` from being swept for as long as this process, or one that it becomes or starts, lives."""
    lock = os.open(f"{tree}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.utime(lock)


def sweep() -> None:
    """Remove what no living process holds: half-made trees, and trees that nobody used for more than a week."""
    for lock in cache().glob("*-*.lock"):
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_suffix(".part"), ignore_errors=True)
            if time.time() - lock.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()


def _key(suite: str) -> str:
    """Changes with the recipe, with what is in the image, and every Monday (for the security updates of the week)."""
    year, week, _ = datetime.now(UTC).isocalendar()
    recipe = hashlib.sha256(RECIPE.read_bytes() + " ".join(OFFLINE[suite]).encode()).hexdigest()
    return f"{year}w{week:02}-{recipe[:12]}"


def _make(suite: str, tree: Path) -> None:
    """Beside its place first, so that a tree is whole or absent."""
    began, part = time.monotonic(), Path(f"{tree}.part")
    shutil.rmtree(part, ignore_errors=True)
    print(f"== making the image of a {suite} host (once a week, or when its recipe changes)", flush=True)
    argv = ["sh", str(RECIPE), suite, str(part), *OFFLINE[suite]]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise ImageError(
            f"the image of a {suite} host could not be made: check that this machine reaches its Debian mirror, "
            f"then run the same command again. What was said:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    part.rename(tree)
    print(f"== image of {suite} made in {time.monotonic() - began:.0f} s", flush=True)


def _free_kib() -> int:
    """Memory that is available, in KiB."""
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0])
