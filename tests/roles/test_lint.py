"""What linters say of the collection, and whether it works where `ansible-galaxy` has put it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.roles.ansible import HOME, ROOT, program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SOURCES = ("galaxy.yml", "meta", "roles", "playbooks", "inventory.example", ".ansible-lint", ".yamllint")


def run(home: Path, *argv: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {
        "HOME": str(home),
        "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_ansible_lint_finds_nothing_in_its_strictest_profile(tmp_path: Path) -> None:
    done = run(tmp_path, program("ansible-lint"), "--offline", "--profile", "production", "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skip_list" not in (ROOT / ".ansible-lint").read_text()


def test_nothing_is_kept_from_the_linter() -> None:
    files = [path for part in ("roles", "playbooks") for path in (ROOT / part).rglob("*.yml")]
    assert len(files) > 50
    assert not [path for path in files if "noqa" in path.read_text()]


def test_yamllint_finds_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, program("yamllint"), "--strict", *SOURCES)
    assert done.returncode == 0, done.stdout


def test_every_playbook_works_from_an_installed_collection(tmp_path: Path) -> None:
    """Built and installed as `ansible-galaxy collection install` does with the repository, without its network."""
    names = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    assert len(names) >= 13
    built = run(tmp_path, program("ansible-galaxy"), "collection", "build", "--output-path", str(tmp_path / "built"))
    assert built.returncode == 0, built.stderr
    archive, place = next((tmp_path / "built").glob("*.tar.gz")), str(tmp_path / "collections")
    installed = run(
        tmp_path, program("ansible-galaxy"), "collection", "install", "--offline", "-p", place, str(archive)
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    for name in names:
        argv = [
            "env",
            f"ANSIBLE_COLLECTIONS_PATH={place}",
            program("ansible-playbook"),
            "-i",
            str(ROOT / "inventory.example"),
        ]
        done = run(tmp_path, *argv, "--syntax-check", f"pingmon.pingmon.{name}", folder=tmp_path)
        assert done.returncode == 0, name + done.stderr
