"""The way from a bare machine to a checkout that runs: `.ci/setup.sh` and the rule that CI skips nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What setup.sh may use on a machine that has neither apt nor a usable Python.
TOOLS = ("sh", "cat", "cksum", "tr", "id", "grep", "mkdir", "dirname", "date")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the set-up scripts beside a PATH with the barest tools."""
    for name in (".ci", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def install(bare: Path, name: str, script: str) -> None:
    path = bare / "bin" / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def setup(bare: Path, *steps: str) -> tuple[int, str]:
    """(exit code, what is on stderr) of setup.sh on that machine."""
    done = subprocess.run(
        [str(bare / "bin/sh"), ".ci/setup.sh", *steps],
        cwd=bare, capture_output=True, text=True, timeout=60, env={"PATH": str(bare / "bin"), "HOME": str(bare)},
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


def test_a_too_old_python_is_one_sentence(bare: Path) -> None:
    """Where the only Python is too old, one sentence names what was found and what to do."""
    install(bare, "python3", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')

    assert setup(bare, "python", "run") == (
        1,
        "pingmon needs Python 3.11 or newer and found python3 3.9: install one and name it, "
        "as in 'make run PYTHON=/usr/bin/python3.11'.",
    )


def test_no_python_is_one_sentence(bare: Path) -> None:
    """Where there is no Python at all, the same sentence says so."""
    code, said = setup(bare, "python", "run")

    assert code == 1
    assert said.startswith("pingmon needs Python 3.11 or newer and found no python3: install one")


def test_a_newer_python_beside_an_old_one_is_used(bare: Path) -> None:
    """An old `python3` does not matter where a newer one is on the PATH: the next obstacle is named instead."""
    install(bare, "python3", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    install(bare, "python3.12", f'case "$2" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')

    assert setup(bare, "python", "run") == (
        1,
        "python3.12 cannot make virtual environments: run 'sudo apt-get install python3-venv', "
        "then the same command again.",
    )


def test_an_unknown_step_is_refused(bare: Path) -> None:
    """A step that does not exist is named together with those that do."""
    assert setup(bare, "kitchen") == (
        1,
        "setup.sh knows the steps python, frontend, system, bed, ansible and peers, not 'kitchen'.",
    )


@pytest.mark.e2e
@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--no-skips",), 1)])
def test_a_skip_fails_the_run_only_where_asked(tmp_path: Path, flags: tuple[str, ...], code: int) -> None:
    """With --no-skips a skipped test is named and fails the run, and pytest's closing line stays the last."""
    test = tmp_path / "test_one.py"
    test.write_text("import pytest\n\ndef test_a(): pass\n\n@pytest.mark.skip(reason='no moon')\ndef test_b(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(tmp_path), "-q",
         "-p", "no:cacheprovider", *flags, str(test)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()

    assert done.returncode == code
    assert lines[-1].startswith("1 passed, 1 skipped")
    assert any("test_one.py::test_b" in line for line in lines) == bool(flags)


def test_the_locked_sets_agree() -> None:
    """No package is locked at two versions, every line has a hash, and no address stands in any file. The oldest and
    the newest Ansible are the exception: other versions are the point of them, and nothing is installed beside them.
    """
    versions: dict[str, set[str]] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text, path.name
        for block in text.replace("\\\n", " ").splitlines():
            name, version = block.split()[0].split("==")
            assert "--hash=sha256:" in block, block
            if path.stem not in ("ansible-oldest", "ansible-newest"):
                versions.setdefault(name, set()).add(version)

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_make_without_a_target_lists_all_targets() -> None:
    """`make` alone names every target that people use, each with a sentence."""
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    words = {line.split()[1] for line in listed.splitlines()}
    assert {"run", "lab", "test", "check", "format", "frontend", "lock", "dist", "clean", "help"} <= words
