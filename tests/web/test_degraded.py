"""Pages while the disk is full: whoever comes to see what is wrong gets in and reads why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import Site, open_site


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Site]:
    """A site on a tmpfs without a free page."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    site = open_site(place / "data")
    try:
        with (place / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                _write_until_full(file, bytes(size))
        yield site
    finally:
        site.application.services.close()
        subprocess.run(["umount", place], check=True)


def _write_until_full(file: object, block: bytes) -> None:
    try:
        while True:
            file.write(block)  # type: ignore[attr-defined]
    except OSError:
        return


@pytest.mark.root
def test_people_sign_in_while_the_disk_is_full(full: Site) -> None:
    """The time of the sign-in cannot be kept; people get in all the same, and read why."""
    directory = full.application.services.directory
    visitor = full.visitor("viewer")

    for _ in range(3):
        full.application.services.look()
        body = visitor.api("GET", "/api/v1/grid")
        assert directory.trouble == "less than 1 MiB is free on its disk"
        assert "The directory database cannot be written (less than 1 MiB is free on its disk)" in body["trouble"]
