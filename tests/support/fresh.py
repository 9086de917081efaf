"""Databases as a first start leaves them: made once by the real one, then copied, which takes a thirtieth of the time.

Keys, peppers and logs are not copied: each server makes its own. Tests of the first start itself call `open_services`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pingmon.config import Config, build
from pingmon.services.bundle import Services, open_services
from pingmon.services.clock import Clock
from pingmon.store.rounds import SqliteRounds

DATABASES = ("pingmon.db", "samples.db")


def contents(data_dir: Path) -> dict[str, bytes]:
    """Both databases of a server that was closed, by file name."""
    open_still = [file.name for file in data_dir.glob("*-wal")]
    assert not open_still, f"{open_still} may hold what the databases lack: close the services first"
    return {name: (data_dir / name).read_bytes() for name in DATABASES}


@cache
def _first_start() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        open_services(build({"server": {"data_dir": place}}, {})).close()
        return contents(Path(place))


def lay(data_dir: Path, files: Mapping[str, bytes] | None = None) -> None:
    """Write both databases (those of a first start, or `files`) into a directory that has none yet."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in (files or _first_start()).items():
        (data_dir / name).touch(mode=0o600, exist_ok=False)
        (data_dir / name).write_bytes(content)


def fresh_services(config: Config, clock: Clock | None = None) -> Services:
    """`open_services` on an empty directory, without the wait for the migrations."""
    lay(config.data_dir)
    return open_services(config, clock)


def fresh_rounds(folder: Path) -> SqliteRounds:
    """The store of rounds alone, on a `samples.db` that nobody has written to."""
    lay(folder, {"samples.db": _first_start()["samples.db"]})
    return SqliteRounds(folder / "samples.db")
