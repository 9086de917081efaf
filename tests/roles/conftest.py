"""What tests of the wheelhouse share: its program, a real wheel of this checkout, archives built with the network."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wheelhouse_lock import pins_of, platform_of
from wheelhouse_pip import Builder

ROOT = Path(__file__).parents[2]
FILES = ROOT / "roles/pingmon_common/files"
HERE = f"cp3{sys.version_info.minor}:{platform.machine()}"  # an archive for it can be installed by the tests
CLOSED = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}


@dataclass(frozen=True)
class Built:
    """What one run of wheelhouse.py left: exit code, its JSON (None if it refused), and its last line on stderr."""

    code: int
    answer: Any
    said: str


def build(out: Path, *platforms: str, root: Path = ROOT, wheel: Path | None = None, **how: Any) -> Built:
    """Runs the program as Ansible does; `how` goes to subprocess.run, and `env` there is added to ours."""
    words = [word for name in platforms for word in ("--platform", name)]
    words += ["--wheel", str(wheel)] if wheel else []
    environment = os.environ | how.pop("env", {})
    done = subprocess.run(
        [sys.executable, FILES / "wheelhouse.py", "--root", root, "--out", out, *words],
        capture_output=True, text=True, timeout=500, env=environment, **how,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    said = done.stderr.splitlines()
    return Built(done.returncode, json.loads(lines[-1]) if lines else None, said[-1] if said else "")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout without git, after `.ci/dist.sh`: as it is in a collection that was shipped with its wheel."""
    place = tmp_path_factory.mktemp("tree")
    for name in ("pingmon", "pingmon_agent", "requirements", ".ci", "roles"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place)
    (place / "pingmon/static").mkdir(exist_ok=True)  # where nobody built the front end, a page of ours does
    (place / "pingmon/static/app.js").touch()
    (place / "build").mkdir()
    pack(place)
    return place


def pack(tree: Path) -> None:
    """Wheel and source archive into dist/, as `make dist` does it once it has set everything up."""
    environment = os.environ | {"VENV": sys.prefix}
    subprocess.run(["sh", ".ci/dist.sh"], cwd=tree, check=True, capture_output=True, env=environment)


@pytest.fixture(scope="session")
def wheel(tree: Path) -> Path:
    return next((tree / "dist").glob("*.whl"))


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose builder is ready and whose store has pip and nothing else."""
    out, here = tmp_path_factory.mktemp("ready"), platform_of(f"agent:{HERE}")
    builder = Builder(ROOT / "requirements", out)
    builder.prepare()
    builder.wheels(here, pins_of(ROOT / "requirements/wheelhouse.txt", here), tmp_path_factory.mktemp("pip"))
    return out


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, ready: Path, wheel: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with both archives for the machine that runs the tests, and what the program answered."""
    out = tmp_path_factory.mktemp("house")
    (out / ".builder").symlink_to(ready / ".builder")
    built = build(out, f"agent:{HERE}", f"server:{HERE}", wheel=wheel)
    assert built.code == 0, built.said
    return out, built.answer
