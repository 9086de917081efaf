"""Where the lab cannot run, or is asked for what it has not got, it says so in a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.__main__ import RefusedError, check_host
from tests.support.processes import clean_environment

ROOT = Path(__file__).parents[2]


def command(*words: str) -> tuple[int, str]:
    """(exit code, stderr) of `python -m tests.lab WORDS`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab", *words], cwd=ROOT, capture_output=True, text=True, env=clean_environment()
    )
    return done.returncode, done.stderr.strip()


def test_without_root_it_asks_for_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root is told the command that works."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(RefusedError, match="needs Linux and root, for its network namespaces: run `sudo make lab`"):
        check_host()


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without iproute2 the package is named."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "ip" else f"/bin/{program}")

    with pytest.raises(RefusedError, match="needs the program ip: run `apt-get install iproute2`, then make lab again"):
        check_host()


@pytest.mark.e2e
def test_no_lab_to_talk_to(tmp_path: Path) -> None:
    """A command for a lab that is not running says how to start one."""
    assert command("--dir", str(tmp_path), "state") == (
        1, f"no lab is running in {tmp_path}: start one with `make lab`.",
    )  # fmt: skip


@pytest.mark.e2e
def test_an_unknown_path_is_refused(tmp_path: Path) -> None:
    """A path between places that do not exist is refused with those that do."""
    assert command("--dir", str(tmp_path), "down", "lon-mars") == (
        1,
        "'lon-mars' is no path: write two of fra, ams, lon, nyc, sin, syd with - (both ways) or > between them",
    )
