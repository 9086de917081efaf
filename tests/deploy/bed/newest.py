"""The newest ansible-core, which wants a newer Python than this machine may have: on a Debian 13 tree, by chroot.

    layer = newest.prepare(trixie)                 outside, with a network: made once per lock file and tree
    root = newest.mount(layer, trixie, place)      inside a bed: a root in which /opt/ansible-newest/bin is

Must not know: what is played.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import images
from .spaces import HOME, ROOT

RECIPE = Path(__file__).parents[1] / "images/controller.sh"
LOCK = ROOT / "requirements/ansible-newest.txt"
BIN = Path("/opt/ansible-newest/bin")
SUITE, PYTHON = "trixie", "3.13"  # a Debian release and the Python it has
_GLIBC_MINORS = range(17, 42)  # wheels built for any of these run on Debian 13


def prepare(tree: Path) -> Path:
    """What has to lie over `tree`; made if it is missing. ImageError where that fails."""
    recipe = LOCK.read_bytes() + RECIPE.read_bytes() + tree.name.encode()
    layer = images.cache() / f"ansible-{hashlib.sha256(recipe).hexdigest()[:12]}"
    with images.making():
        images.hold(layer)
        if not layer.is_dir():
            print("== making the newest ansible-core ready", flush=True)
            _make(tree, layer)
    return layer


def _make(tree: Path, layer: Path) -> None:
    """Beside its place first, so that the layer is whole or absent."""
    part = Path(f"{layer}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with tempfile.TemporaryDirectory() as wheels:
        _run("the wheels for the newest ansible-core", _download(wheels))
        shutil.copy(LOCK, Path(wheels) / "requirements.txt")
        own_mounts = ["unshare", "--mount", "--propagation", "private"]
        _run("the newest ansible-core", [*own_mounts, "sh", str(RECIPE), str(tree), wheels, str(part)])
    part.rename(layer)


def _download(wheels: str) -> list[str]:
    """pip's words for all wheels of the lock file, for the Python of the tree and not for this one."""
    machine = platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS] + [f"manylinux2014_{machine}", "any"]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", wheels]
    argv += ["--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(LOCK)]
    argv += ["--python-version", PYTHON, "--implementation", "cp"]
    argv += [f"--platform={name}" for name in platforms]
    return argv


def _run(what: str, argv: list[str]) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise images.ImageError(
            f"{what} could not be had: check that this machine reaches its package index, then run the same command "
            f"again. What was said:\n{(done.stdout + done.stderr)[-3000:]}"
        )


def mount(layer: Path, tree: Path, place: Path) -> Path:
    """A root below `place` (on a tmpfs) with the checkout, the bed and temporary files where they are here."""
    root = place / "root"
    for folder in (root, place / "upper", place / "work"):
        folder.mkdir(parents=True)
    options = f"lowerdir={layer}:{tree},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "ansible", str(root)], check=True)
    for shared in (Path("/dev"), Path("/proc"), Path(tempfile.gettempdir()), HOME, ROOT):
        there = root / shared.relative_to("/")
        there.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(shared), str(there)], check=True)
    subprocess.run(["mount", "--bind", "/dev/pts", str(root / "dev/pts")], check=True)
    return root
