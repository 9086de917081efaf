"""What the builder refuses: files that are not those of the lock, packages that fit no host, an index that is away."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from wheelhouse_base import Refusal
from wheelhouse_pip import refuse_impure

from .conftest import CLOSED, HERE, ROOT, Built, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
House = tuple[Path, dict[str, Any]]
Shelf = Callable[..., Built]
SETUP = "import setuptools\nsetuptools.setup(name='Flask-Principal', version='9.9', py_modules=[]{more})\n"


@pytest.fixture
def out(ready: Path, tmp_path: Path) -> Path:
    """A folder whose builder is ready and whose store has pip only."""
    shutil.copytree(ready, tmp_path / "out", symlinks=True, ignore=shutil.ignore_patterns(".builder"))
    (tmp_path / "out/.builder").symlink_to(ready / ".builder")
    return tmp_path / "out"


@pytest.fixture
def shelf(out: Path, wheel: Path, tmp_path: Path) -> Shelf:
    """Builds from the folder of a file instead of an index, with a lock of that one pin (and pip's)."""

    def built(file: Path, pin: str, platform: str, digest: str | None = None) -> Built:
        shutil.copytree(ROOT / "requirements", tmp_path / "requirements", dirs_exist_ok=True)
        lock = f"{pin} --hash=sha256:{digest or sha256(file.read_bytes()).hexdigest()}\n"
        (tmp_path / f"requirements/{platform.split(':')[0]}.txt").write_text(lock)
        for pip in out.glob(".cache/pip-*.whl"):
            shutil.copy(pip, file.parent)
        here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(file.parent)}
        return build(out, platform, root=tmp_path, wheel=wheel, env=here)

    return built


def source(place: Path, more: str = "") -> Path:
    """A source archive of a package that is on the list of those that are built."""
    folder = place / "Flask-Principal-9.9"
    folder.mkdir(parents=True)
    (folder / "setup.py").write_text(SETUP.format(more=more))
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: Flask-Principal\nVersion: 9.9\n")
    path = place / "shelf/Flask-Principal-9.9.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def test_a_wrong_hash_in_the_lock_is_refused(out: Path, wheel: Path, tmp_path: Path) -> None:
    """The package is named, the log has both hashes, and no archive is written."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    lock = tmp_path / "requirements/agent.txt"
    head, tail = lock.read_text().split("icmplib==", 1)
    lock.write_text(head + "icmplib==" + tail.replace("--hash=sha256:", "--hash=sha256:" + "0" * 64 + "\n#", 2))
    refused = build(out, f"agent:{HERE}", root=tmp_path, wheel=wheel)

    assert refused.code == 1
    assert refused.said.startswith(
        "icmplib==3.0.4 from the package index is not what requirements/ has locked: install nothing"
    )
    assert list(out.glob("*.tar.gz")) == []


def test_a_changed_file_in_the_store_is_fetched_again(house: House, wheel: Path, tmp_path: Path) -> None:
    """It is the file of the lock that gets into the archive, and back into the store."""
    out = shutil.copytree(house[0], tmp_path / "out", symlinks=True)
    [changed] = out.glob(".cache/icmplib-*.whl")
    good = changed.read_bytes()
    changed.write_bytes(good + b"x")
    next(out.glob("pingmon-agent-*.gz")).unlink()
    built = build(out, f"agent:{HERE}", wheel=wheel)

    assert built.code == 0, built.said
    assert built.answer["archives"][0]["sha256"] == house[1]["archives"][0]["sha256"]
    assert changed.read_bytes() == good


def test_what_no_lock_names_does_not_stay(shelf: Shelf, out: Path, tmp_path: Path) -> None:
    """Older versions, and what somebody laid there, leave the store at the next build."""
    strange = out / ".cache/icmplib-3.0.3-py3-none-any.whl"
    strange.write_bytes(b"older")
    built = shelf(source(tmp_path), "flask-principal==9.9", "server:cp312:x86_64")

    assert built.code == 0, built.said
    assert not strange.exists()


def test_an_index_that_is_away_is_one_sentence(out: Path, wheel: Path) -> None:
    """Whether or not pip tries again, and not taken for a package that is not there."""
    for retries in ("0", "1"):
        refused = build(out, f"agent:{HERE}", wheel=wheel, env=CLOSED | {"PIP_RETRIES": retries})

        assert refused.code == 1
        assert refused.said.startswith(
            "the package index cannot be reached: check the network, the proxy and `pip config"
        )


def test_a_builder_without_an_index_is_one_sentence(wheel: Path, tmp_path: Path) -> None:
    """The first thing that a new wheelhouse needs is a pip of its own."""
    refused = build(tmp_path, f"agent:{HERE}", wheel=wheel, env=CLOSED)

    assert refused.code == 1
    assert refused.said.startswith("the package index cannot be reached")


def test_a_package_without_a_wheel_is_named(shelf: Shelf, tmp_path: Path) -> None:
    """For the host that it lacks one for; its wheel for another one does not do."""
    (tmp_path / "shelf").mkdir()
    only = tmp_path / "shelf/intel-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"
    only.write_bytes(b"is never opened")
    refused = shelf(only, "intel==1.0", "agent:cp312:aarch64")

    assert refused.code == 1
    assert refused.said == (
        "intel==1.0 has no wheel for cp312 on aarch64 with glibc 2.28: lock a version in requirements/agent.txt that "
        "has one, or leave hosts with that Python out; if it comes as pure Python source only, add it to SOURCES in "
        "wheelhouse_pip.py."
    )


def test_a_wheel_for_newer_hosts_only_is_none(shelf: Shelf, tmp_path: Path) -> None:
    """glibc 2.34 is not on Debian 11 and Ubuntu 20.04."""
    (tmp_path / "shelf").mkdir()
    only = tmp_path / "shelf/intel-1.0-cp312-cp312-manylinux_2_34_x86_64.whl"
    only.write_bytes(b"is never opened")

    assert shelf(only, "intel==1.0", "agent:cp312:x86_64").said.startswith(
        "intel==1.0 has no wheel for cp312 on x86_64"
    )


def test_a_source_that_nobody_listed_is_not_built(shelf: Shelf, tmp_path: Path) -> None:
    """To build it would be to run it."""
    path = source(tmp_path)
    other = path.rename(path.with_name("other-9.9.tar.gz"))
    refused = shelf(other, "other==9.9", "agent:cp312:x86_64")

    assert refused.said.startswith("other==9.9 has no wheel for cp312 on x86_64")


def test_a_listed_source_is_built(shelf: Shelf, tmp_path: Path) -> None:
    """And is the same wheel on every platform."""
    path = source(tmp_path)
    built = [shelf(path, "flask-principal==9.9", f"server:cp312:{arch}") for arch in ("x86_64", "aarch64")]
    wheels = {_flask_principal(Path(one.answer["archives"][0]["path"])) for one in built}

    assert len(wheels) == 1


def test_a_changed_source_is_not_built(shelf: Shelf, tmp_path: Path) -> None:
    """Its hash is looked at before anything of it runs."""
    ran = tmp_path / "ran"
    path = source(tmp_path, f", description=open({str(ran)!r}, 'w').name")
    refused = shelf(path, "flask-principal==9.9", "server:cp312:x86_64", digest="0" * 64)

    assert refused.said.startswith("flask-principal==9.9 from the package index is not what requirements/ has locked")
    assert not ran.exists()
    assert shelf(path, "flask-principal==9.9", "server:cp312:x86_64").code == 0
    assert ran.exists()


def test_a_source_with_compiled_parts_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """What was compiled on the controller would be wrong on most hosts."""
    kind = "type('Compiled', (setuptools.Distribution,), {'has_ext_modules': lambda self: True})"
    refused = shelf(source(tmp_path, f", distclass={kind}"), "flask-principal==9.9", "server:cp312:x86_64")

    assert refused.code == 1
    assert "was built here and runs on this kind of machine only: lock a version that has wheels" in refused.said


@pytest.mark.parametrize("tag", ["py3-none-linux_x86_64", "cp311-cp311-linux_x86_64", "cp311-abi3-any"])
def test_impure_is_what_asks_for_anything(tag: str) -> None:
    """A processor, an interface."""
    with pytest.raises(Refusal, match="runs on this kind of machine only"):
        refuse_impure(Path(f"a-1-{tag}.whl"))

    refuse_impure(Path("a-1-py2.py3-none-any.whl"))


def _flask_principal(archive: Path) -> bytes:
    with tarfile.open(archive) as opened:
        [name] = [name for name in opened.getnames() if "flask_principal" in name.lower()]
        return opened.extractfile(name).read()  # type: ignore[union-attr]
