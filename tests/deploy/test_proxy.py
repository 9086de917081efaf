"""A pytest outside says of each test what the pytest inside did, and never better. Inside is a plain process here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .bed import spaces

pytestmark = pytest.mark.slow  # a pytest in a pytest in a pytest
CONFTEST = """
import os, sys, pytest
from pathlib import Path
from tests.deploy.proxy import Proxies

def inside(words, tests):
    pytest = [sys.executable, "-m", "pytest", "-p", "tests.deploy.words"]
    return ["env", f"PINGMON_BED_WORDS={words}", "INSIDE=1", *pytest, *tests]

def pytest_configure(config):
    if "INSIDE" not in os.environ:
        config.pluginmanager.register(Proxies("bed", inside, Path("inside.log")))

def pytest_unconfigure():
    if "INSIDE" in os.environ and "DIE" in os.environ:
        os._exit(7)

@pytest.fixture(scope="session")
def bed():
    assert "INSIDE" in os.environ
    yield
    assert not os.environ.get("BREAK"), "the end of the bed"
"""
TESTS = """
import os, pytest

def test_passes(bed): pass
def test_fails(bed): assert 1 == 2, "with its own words"
def test_skips(bed): pytest.skip("for a reason")
@pytest.mark.xfail(reason="known", raises=KeyError)
def test_fails_as_known(bed): raise KeyError
@pytest.mark.xfail(reason="known", raises=KeyError)
def test_fails_otherwise(bed): raise ValueError
@pytest.fixture
def broken(): raise RuntimeError("no set-up")
def test_has_no_set_up(bed, broken): pass
@pytest.fixture
def untidy():
    yield
    raise RuntimeError("no tear-down")
def test_has_no_tear_down(bed, untidy): pass
@pytest.mark.parametrize("word", ["a", "b/c d"])
def test_with(bed, word): assert word == "a"
def test_knows_where_it_is(): assert "INSIDE" not in os.environ
"""
DYING = """
import os
def test_passes(bed): pass
def test_dies(bed): os._exit(0)
def test_never_begins(bed): pass
"""
PASSING = "def test_passes(bed): pass\n"


def outcomes(place: Path, tests: str, *words: str, **environment: str) -> tuple[int, list[str], str]:
    """(exit code, `-rA` lines without their reasons, all output) of a pytest over these tests."""
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_it.py").write_text(tests)
    (place / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *words], cwd=place, capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(spaces.ROOT), **environment},
    )  # fmt: skip
    summary = done.stdout.rpartition("short test summary info")[2].splitlines()[1:-1]
    return done.returncode, sorted(line.split(" - ")[0] for line in summary), done.stdout


def test_all_outcomes_are_those_of_the_run_inside(tmp_path: Path) -> None:
    """Passed, failed, skipped, expected to fail, broken in set-up and in tear-down; what needs no bed runs outside."""
    code, said, output = outcomes(tmp_path, TESTS)
    inside, expected, _ = outcomes(tmp_path, TESTS, "--deselect=test_it.py::test_knows_where_it_is", INSIDE="1")

    assert code == inside == 1
    assert said == sorted([*expected, "PASSED test_it.py::test_knows_where_it_is"])
    assert "AssertionError: with its own words" in output
    assert output.splitlines()[-1].split(" in ")[0].strip("= ") == (
        "3 failed, 4 passed, 1 skipped, 1 xfailed, 2 errors"
    )


def test_only_chosen_tests_are_run(tmp_path: Path) -> None:
    """-k and names outside hold inside."""
    code, said, _ = outcomes(tmp_path, TESTS, "-k", "passes")

    assert (code, said) == (0, ["PASSED test_it.py::test_passes"])
    assert "1 passed" in (tmp_path / "inside.log").read_text()


def test_what_is_not_said_is_a_failure(tmp_path: Path) -> None:
    """The run inside dies in the middle, with the exit code of success."""
    code, said, output = outcomes(tmp_path, DYING)

    assert code == 1
    assert [line.split("::")[1] for line in said if line.startswith("PASSED")] == ["test_passes"]
    assert [line for line in said if "test_dies" in line] == ["FAILED test_it.py::test_dies"]
    assert [line for line in said if "test_never_begins" in line] == ["ERROR test_it.py::test_never_begins"]
    assert "Nothing was said about this by the run inside (exit code 0" in output


@pytest.mark.parametrize("way", ["BREAK", "DIE"])
def test_a_bad_end_is_a_failure(tmp_path: Path, way: str) -> None:
    """Where the bed or the run breaks when all tests have passed, the last of them has an error."""
    code, said, _ = outcomes(tmp_path, PASSING, **{way: "1"})

    assert (code, [line for line in said if "::" in line]) == (
        1,
        ["ERROR test_it.py::test_passes", "PASSED test_it.py::test_passes"],
    )


def test_workers_are_refused(tmp_path: Path) -> None:
    """Each would have its own bed."""
    code, said, output = outcomes(tmp_path, PASSING, "-n", "1")

    assert (code, said) == (1, ["ERROR test_it.py::test_passes"])
    assert "run them without -n" in output
