"""Archives of the wheelhouse: built from the package index, installed without one, refused when they were changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import parse_wheel_filename
from wheelhouse import gzip_stored, tar, whole

from .conftest import CLOSED, HERE, ROOT, build

pytestmark = pytest.mark.timeout(600)  # the first test builds for all
House = tuple[Path, dict[str, Any]]
ISOLATED = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | CLOSED
FIND = "from importlib.util import find_spec as find"
NETLESS = ["unshare", "-n"] if os.geteuid() == 0 else []


def unpack(house: House, role: str, into: Path) -> Path:
    """The archive of that role, opened by tar as a host does it."""
    [path] = [archive["path"] for archive in house[1]["archives"] if archive["role"] == role]
    into.mkdir()
    subprocess.run(["tar", "-xzf", path, "-C", into], check=True)
    return into


def install(place: Path) -> subprocess.CompletedProcess[str]:
    """As on a host, deaf to its environment (-I, --isolated), in a network that is empty where we may make one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    words = "install --isolated --no-index --find-links wheels --require-hashes --only-binary :all: -r requirements.txt"
    return subprocess.run(
        [*NETLESS, place / "venv/bin/python", "-I", "pip.whl/pip", *words.split()],
        cwd=place, capture_output=True, text=True, env=ISOLATED | {"PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip


def output(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, env=ISOLATED).stdout


@pytest.mark.slow
def test_an_agent_is_installed_without_a_network(house: House, tmp_path: Path) -> None:
    """By the pip in the archive, into a venv that has none; nothing of the server comes along."""
    place = unpack(house, "agent", tmp_path / "host")
    done = install(place)
    python = place / "venv/bin/python"

    assert done.returncode == 0, done.stderr
    assert output(place / "venv/bin/pingmon-agent", "--version").startswith("pingmon-agent ")
    assert output(python, "-I", "-c", f"{FIND}; print(find('flask'), find('pip'))") == "None None\n"
    assert "No broken requirements" in output(python, "-I", place / "pip.whl/pip", "check")


@pytest.mark.slow
def test_a_server_is_installed_without_a_network(house: House, tmp_path: Path) -> None:
    """With the package that exists as source only, and with the page."""
    place = unpack(house, "server", tmp_path / "host")
    done = install(place)
    python = place / "venv/bin/python"

    assert done.returncode == 0, done.stderr
    assert output(place / "venv/bin/pingmon", "--version").startswith("pingmon ")
    assert "None" not in output(python, "-I", "-c", f"{FIND}; print(find('flask_principal'), find('eventlet'))")
    assert list(place.glob("venv/lib/python3*/site-packages/pingmon/static/app.js")) != []
    assert "No broken requirements" in output(python, "-I", place / "pip.whl/pip", "check")


@pytest.mark.slow
def test_what_is_inside(house: House) -> None:
    """The sidecar is of the archive, the manifest of the wheels, and only known names are there."""
    for archive in house[1]["archives"]:
        data = Path(archive["path"]).read_bytes()
        with tarfile.open(archive["path"]) as opened:
            files = {entry.name: opened.extractfile(entry).read() for entry in opened}  # type: ignore[union-attr]
            assert {(e.uid, e.gid, e.mtime, e.mode, e.isfile()) for e in opened} == {(0, 0, 0, 0o644, True)}
        manifest = json.loads(files["manifest.json"])
        wheels = {f"wheels/{of['file']}": of["sha256"] for of in manifest["packages"].values()}

        assert Path(archive["path"] + ".sha256").read_text() == archive["sha256"] + "\n"
        assert hashlib.sha256(data).hexdigest() == archive["sha256"]
        assert archive["bytes"] == len(data)
        assert set(files) == {"manifest.json", "pip.whl", "requirements.txt", *wheels}
        assert {name: hashlib.sha256(files[name]).hexdigest() for name in wheels} == wheels
        assert f"pingmon[{archive['role']}]==" in files["requirements.txt"].decode()
        assert manifest["built_by_us"] == (["flask-principal"] if archive["role"] == "server" else [])


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(house: House, wheel: Path, tmp_path: Path) -> None:
    """In another folder, at another time, with other rights for new files, in another time zone."""
    (tmp_path / wheel.name).write_bytes(wheel.read_bytes())
    again = build(
        tmp_path / "again", f"agent:{HERE}", f"server:{HERE}", wheel=tmp_path / wheel.name,
        env={"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1000000000"}, umask=0o077,
    )  # fmt: skip

    assert again.code == 0, again.said
    assert [a["sha256"] for a in again.answer["archives"]] == [a["sha256"] for a in house[1]["archives"]]


@pytest.mark.slow
def test_a_second_run_needs_nothing(house: House, wheel: Path) -> None:
    """No network and no change; a platform that is named twice is one."""
    again = build(house[0], f"agent:{HERE}", f"agent:{HERE}", f"server:{HERE}", wheel=wheel, env=CLOSED)

    assert again.code == 0, again.said
    assert again.answer["changed"] is False
    assert [a["changed"] for a in again.answer["archives"]] == [False, False]
    assert again.said == ""


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "no sidecar", "other bytes"])
def test_a_damaged_archive_is_made_again(house: House, wheel: Path, tmp_path: Path, harm: str) -> None:
    """From what was fetched before, so without a network."""
    out = shutil.copytree(house[0], tmp_path / "out", symlinks=True)
    path = out / Path(house[1]["archives"][0]["path"]).name
    if harm == "no sidecar":
        path.with_name(path.name + ".sha256").unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000] if harm == "cut" else b"x" + path.read_bytes()[1:])
    again = build(out, f"agent:{HERE}", wheel=wheel, env=CLOSED)

    assert again.code == 0, again.said
    assert again.answer["changed"] is True
    assert whole(path) == house[1]["archives"][0]["sha256"]


@pytest.mark.slow
def test_a_new_wheel_of_pingmon_needs_no_network(house: House, wheel: Path, tmp_path: Path) -> None:
    """All else is in the store; the archive says which wheel it holds."""
    shutil.copytree(house[0], tmp_path / "out", symlinks=True)
    other = tmp_path / wheel.name.replace("-0.", "-9.", 1)
    shutil.copy(wheel, other)
    built = build(tmp_path / "out", f"agent:{HERE}", wheel=other, env=CLOSED)

    assert built.code == 0, built.said
    assert built.answer["archives"][0]["version"].startswith("9.")
    assert Path(house[1]["archives"][0]["path"]).name != Path(built.answer["archives"][0]["path"]).name


@pytest.mark.slow
def test_another_kind_of_host_gets_its_own_wheels(wheel: Path, tmp_path: Path) -> None:
    """The newest Python on ARM, built here; no wheel asks for more than glibc 2.28."""
    built = build(tmp_path, "server:cp314:aarch64", wheel=wheel)
    with tarfile.open(built.answer["archives"][0]["path"]) as opened:
        names = [Path(name).name for name in opened.getnames() if name.startswith("wheels/")]
    tags = [parse_wheel_filename(name)[3] for name in names]
    compiled = [{tag.platform for tag in of} for of in tags if {tag.platform for tag in of} != {"any"}]

    assert len(compiled) >= 5
    assert all(any(p.endswith("_aarch64") and p.startswith("manylinux") for p in of) for of in compiled)
    assert {tag.interpreter for of in tags for tag in of if tag.abi.startswith("cp")} == {"cp314"}


@pytest.mark.slow
def test_a_changed_wheel_is_refused_on_the_host(house: House, tmp_path: Path) -> None:
    """By pip, by its hash: nothing is installed of it."""
    place = unpack(house, "agent", tmp_path / "host")
    [changed] = place.glob("wheels/icmplib-*.whl")
    changed.write_bytes(changed.read_bytes() + b"x")
    done = install(place)

    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (place / "venv/bin/pingmon-agent").exists()


def test_stored_gzip_is_gzip() -> None:
    """At the edges of its blocks, and for nothing."""
    for size in (0, 1, 65535, 65536, 131070, 200_001):
        data = os.urandom(size)

        assert gzip.decompress(gzip_stored(data)) == data


def test_a_long_name_survives(tmp_path: Path) -> None:
    """Names of wheels pass the hundred characters that old tar could hold."""
    name = f"wheels/{'a' * 150}.whl"
    with tarfile.open(fileobj=io.BytesIO(tar({name: b"1", "manifest.json": b"2"}))) as opened:
        assert opened.getnames() == ["manifest.json", name]


@pytest.mark.parametrize(
    ("root", "platform", "sentence"),
    [
        (ROOT, "agent:cp39:x86_64", "'agent:cp39:x86_64' is no platform: write ROLE:PYTAG:ARCH"),
        (Path("/nowhere"), "agent:cp311:x86_64", "--root has to be pingmon's tree, and --out yours to write."),
    ],
)
def test_refusals_are_one_sentence(tmp_path: Path, root: Path, platform: str, sentence: str) -> None:
    """On stderr, with code 1 and no JSON."""
    refused = build(tmp_path, platform, root=root, wheel=_empty_wheel(tmp_path))

    assert (refused.code, refused.answer) == (1, None)
    assert sentence in refused.said


def _empty_wheel(place: Path) -> Path:
    wheel = place / "pingmon-0.1.0-py3-none-any.whl"
    (place / "pingmon/static").mkdir(parents=True)
    (place / "pingmon/static/app.js").touch()
    subprocess.run([sys.executable, "-m", "zipfile", "-c", wheel.name, "pingmon"], cwd=place, check=True)
    return wheel
