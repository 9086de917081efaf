"""Which wheel of pingmon goes into the archives: the one in dist/ as long as it is that of these sources."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from wheelhouse_base import Refusal
from wheelhouse_project import project_wheel, sources_digest

from .conftest import pack

NAME = "pingmon-0.1.0-py3-none-any.whl"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree with one file in each place, whose `make dist` packs a wheel of two and counts how often it ran."""
    for name in (
        "setup.cfg", "pyproject.toml", "README.md", "requirements/build.txt", "pingmon/__init__.py",
        "pingmon_agent/__init__.py", "pingmon/frontend/app.ts", "pingmon/static/app.js",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Makefile").write_text(
        f".PHONY: dist\ndist:\n\t@echo once >>runs; mkdir -p dist; python3 -m zipfile -c dist/{NAME} pingmon/\n"
    )
    return tmp_path


def runs(root: Path) -> int:
    return len((root / "runs").read_text().split()) if (root / "runs").exists() else 0


def test_a_wheel_is_built_once(small: Path) -> None:
    """Without git, and not again while the sources are the same, whatever their times say."""
    wheel = project_wheel(small, None)
    os.utime(small / "pingmon/__init__.py", (4_000_000_000, 4_000_000_000))

    assert wheel == small / "dist" / NAME
    assert project_wheel(small, None) == wheel
    assert runs(small) == 1


@pytest.mark.parametrize(
    "changed", ["pingmon/__init__.py", "pingmon_agent/new.py", "pingmon/frontend/app.ts", "setup.cfg", f"dist/{NAME}"]
)
def test_a_change_builds_it_anew(small: Path, changed: str) -> None:
    """Of either program, the browser part, what is packed, or of the wheel itself."""
    project_wheel(small, None)
    with (small / changed).open("a") as file:
        file.write("more")
    project_wheel(small, None)

    assert runs(small) == 2


@pytest.mark.parametrize(
    "made", ["pingmon/__pycache__/a.pyc", "pingmon/static/app.css", "pingmon/frontend/node_modules/a/index.js"]
)
def test_what_is_made_is_no_source(small: Path, made: str) -> None:
    """Caches, packages of npm and the built page change nothing."""
    before = sources_digest(small)
    (small / made).parent.mkdir(parents=True, exist_ok=True)
    (small / made).write_text("made")

    assert sources_digest(small) == before


def test_a_moved_file_is_another_tree(small: Path) -> None:
    """Equal contents under another path are other sources."""
    before = sources_digest(small)
    (small / "pingmon/__init__.py").rename(small / "pingmon/frontend/__init__.py")

    assert sources_digest(small) != before


def test_a_wheel_that_is_given_is_taken(small: Path, tmp_path: Path) -> None:
    """Nothing is built, and dist/ is not looked at."""
    given = tmp_path / NAME
    with zipfile.ZipFile(given, "w") as wheel:
        wheel.writestr("pingmon/static/app.js", "")

    assert project_wheel(small, given) == given
    assert runs(small) == 0


def test_a_wheel_without_the_browser_part_is_refused(small: Path, tmp_path: Path) -> None:
    """As `pip wheel .` would make it."""
    given = tmp_path / NAME
    with zipfile.ZipFile(given, "w") as wheel:
        wheel.writestr("pingmon/__init__.py", "")

    with pytest.raises(Refusal, match="lacks the browser part: build it by `make dist`, which brings that in"):
        project_wheel(small, given)


@pytest.mark.parametrize(("name", "content"), [("flask-1-py3-none-any.whl", None), (NAME, b"no zip"), (NAME, None)])
def test_what_is_no_wheel_of_pingmon_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    """Another project, another kind of file, no file."""
    if content:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(Refusal, match=r"is no wheel of pingmon: give the one of `make dist` with --wheel\."):
        project_wheel(tmp_path, tmp_path / name)


@pytest.mark.parametrize("makefile", ["dist:\n\t@exit 1\n", None])
def test_a_build_that_fails_is_one_sentence(small: Path, makefile: str | None) -> None:
    """That names the way without a build."""
    (small / "Makefile").unlink()
    if makefile:
        (small / "Makefile").write_text(makefile)

    with pytest.raises(Refusal, match=r"`make dist` failed in .*: the lines above say why; or give a wheel"):
        project_wheel(small, None)


@pytest.mark.slow
def test_a_shipped_wheel_needs_no_build(tree: Path, tmp_path: Path) -> None:
    """`.ci/dist.sh` notes what it built from, so a copy of the tree with dist/ is enough, without make."""
    shutil.copytree(tree, tmp_path / "collection")

    wheel = project_wheel(tmp_path / "collection", None)

    assert wheel.parent == tmp_path / "collection/dist"
    assert not (tmp_path / "collection/Makefile").exists()


@pytest.mark.slow
def test_the_same_sources_are_the_same_wheel(tree: Path, tmp_path: Path) -> None:
    """Whatever times a checkout gave the files: otherwise each build would be another release on all hosts."""
    again = shutil.copytree(tree, tmp_path / "again")
    for file in again.rglob("*"):
        os.utime(file, (1_500_000_000, 1_500_000_000))
    pack(again)

    assert (again / "dist/SOURCES").read_text() == (tree / "dist/SOURCES").read_text()
