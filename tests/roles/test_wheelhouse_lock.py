"""What of a lock goes where: platforms, markers asked about a host that is not here, and the tags that pip is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheelhouse_base import Refusal
from wheelhouse_lock import Pin, pins_of, platform_of

from .conftest import ROOT

TAGS = ("cp311", "cp312", "cp313", "cp314")
ARCHES = ("x86_64", "aarch64")


def names(lock: Path, platform: str) -> set[str]:
    return {pin.name for pin in pins_of(lock, platform_of(platform))}


@pytest.mark.parametrize(
    ("marker", "on"),
    [
        ("python_full_version < '3.12'", {"cp311"}),
        ("python_full_version >= '3.13'", {"cp313", "cp314"}),
        ("python_full_version <= '3.11.4'", {"cp311"}),  # a host may have 3.11.2, another 3.11.9
        ("python_full_version >= '3.12.4'", {"cp312", "cp313", "cp314"}),
        ("python_version == '3.12'", {"cp312"}),
        ("python_version < '3.11'", set()),
        ("sys_platform == 'win32'", set()),
        ("os_name == 'posix' and platform_system == 'Linux'", set(TAGS)),
        ("platform_python_implementation == 'PyPy'", set()),
        ("implementation_name == 'cpython'", set(TAGS)),
        ("platform_machine == 'aarch64'", set()),
        ("extra == 'test'", set()),
    ],
)
def test_markers_are_asked_about_the_host(tmp_path: Path, marker: str, on: set[str]) -> None:
    """Not about the Python that runs this; a package that some patch release needs is taken along."""
    lock = tmp_path / "lock.txt"
    lock.write_text(f"some-thing==1.0 ; {marker} \\\n    --hash=sha256:aa\n")

    assert {tag for tag in TAGS if names(lock, f"agent:{tag}:x86_64")} == on


def test_the_processor_is_the_hosts(tmp_path: Path) -> None:
    """A package for one processor goes to hosts with that one."""
    lock = tmp_path / "lock.txt"
    lock.write_text("arm==1.0 ; platform_machine == 'aarch64' --hash=sha256:aa\n")

    assert [names(lock, f"agent:cp311:{arch}") for arch in ARCHES] == [set(), {"arm"}]


def test_a_pin_is_what_pip_reads(tmp_path: Path) -> None:
    """Name as PEP 503 has it, exact version, all hashes, no marker: pip would ask that about the controller."""
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# by hand\nSome_Thing==1.0.post1 ; python_version > '3' \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n"
    )

    [pin] = pins_of(lock, platform_of("agent:cp311:x86_64"))

    assert pin == Pin("some-thing", "1.0.post1", ("sha256:aa", "sha256:bb"))
    assert str(pin) == "some-thing==1.0.post1 --hash=sha256:aa --hash=sha256:bb"


def test_two_versions_on_one_host_are_refused(tmp_path: Path) -> None:
    """Markers that differ by a patch release can let both in; nobody knows which one a host would need."""
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1 ; python_full_version < '3.11.4'\na==2 ; python_full_version >= '3.11.4'\n")

    with pytest.raises(Refusal, match=r"lock\.txt has a twice for cp311: make its markers exclude each other\."):
        pins_of(lock, platform_of("agent:cp311:x86_64"))


@pytest.mark.parametrize(
    "text",
    ["agent:cp310:x86_64", "agent:cp39:x86_64", "agent:py3:x86_64", "robot:cp311:x86_64", "agent:cp311:armv7l",
     "agent:cp311", "agent:cp311:x86_64:", "agent:cp313t:x86_64"],
)  # fmt: skip
def test_other_platforms_are_refused(text: str) -> None:
    """In a sentence that shows how to write one."""
    with pytest.raises(Refusal) as refusal:
        platform_of(text)

    assert str(refusal.value) == (
        f"'{text}' is no platform: write ROLE:PYTAG:ARCH with agent or server, cp311 or newer, x86_64 or aarch64, "
        "as in agent:cp311:x86_64."
    )


def test_tags_are_those_of_old_enough_hosts() -> None:
    """glibc 2.28 and older, the newest first, in the spelling of before too; no musl, and no x86 names on ARM."""
    intel = platform_of("agent:cp311:x86_64").manylinux()
    arm = platform_of("agent:cp311:aarch64").manylinux()

    assert intel[:2] == ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]
    assert intel[-4:] == ["manylinux_2_5_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    assert arm[0] == "manylinux_2_28_aarch64"
    assert arm[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("tag", TAGS)
def test_the_agents_lock_has_nothing_of_the_server(tag: str, arch: str) -> None:
    """And the other way round: each role has its own lock, on every platform."""
    agent = names(ROOT / "requirements/agent.txt", f"agent:{tag}:{arch}")
    server = names(ROOT / "requirements/server.txt", f"server:{tag}:{arch}")

    assert {"icmplib", "python-socketio", "cryptography"} <= agent
    assert {"flask", "eventlet", "sqlmodel", "cryptography"} <= server
    assert agent.isdisjoint({"flask", "eventlet", "sqlmodel", "sqlalchemy", "tzdata"})
    assert server.isdisjoint({"icmplib", "websocket-client", "gevent", "tzdata", "pytest"})
