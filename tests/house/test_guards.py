"""The list of guards does not rot, and what takes them out can tell a guard that is held from one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guards.catalogue import GUARDS, ROOT, faults_of
from tests.guards.enrolment import Guard
from tests.guards.tree import PASSED, Tree

SEAL = "pingmon_agent/wire/seal.py"
TEST = "tests/wire/test_seal.py 16_17"
POSSESSION = 'or not _genuine(public, signature, b"pingmon/1/pop" + th1)'


@pytest.mark.parametrize("number", range(1, len(GUARDS) + 1))
def test_a_guard_stands_once_in_its_file_and_its_test_exists(number: int) -> None:
    """All of them, by reading; `make test-guards` runs them."""
    assert list(faults_of(GUARDS[number - 1])) == []


def test_no_guard_is_listed_twice() -> None:
    """With the same test."""
    assert len(set(GUARDS)) == len(GUARDS)


@pytest.mark.parametrize(
    ("guard", "sentences"),
    [
        ((SEAL, "no such guard", "", TEST), ["the guard stands 0 times in"]),
        ((SEAL, "import", "", TEST), ["times in pingmon_agent/wire/seal.py: copy it"]),
        (("pingmon/gone.py", "x", "", TEST), ["the guard stands 0 times in pingmon/gone.py"]),
        ((SEAL, POSSESSION, "or (", TEST), ["is no Python without the guard"]),
        ((SEAL, POSSESSION, "", "tests/wire/test_seal.py 16_17 or gone"), ["'gone' chooses no test function"]),
        (
            (SEAL, POSSESSION, "", "tests/wire/test_seal.py test_seal"),
            ["'test_seal' chooses no test function of its own"],
        ),
        ((SEAL, POSSESSION, "", "tests/wire/test_gone.py 16_17"), ["'16_17' chooses no test function"]),
    ],
)
def test_what_has_rotted_is_named(guard: Guard, sentences: list[str]) -> None:
    """A guard that moved, one that is there twice, a mutant that does not compile, a test that was renamed."""
    said = list(faults_of(guard))
    assert [expected in sentence for expected, sentence in zip(sentences, said, strict=True)] == [True]


@pytest.mark.slow
def test_a_guard_is_held_lost_or_missing(tmp_path: Path) -> None:
    """By real runs in a copy: the test fails without a guard it knows, passes without anything it does not, and the
    file is whole again after each.
    """
    tree, log = Tree(ROOT, tmp_path / "tree"), tmp_path / "log"
    before = (tree.place / SEAL).read_text()
    said = [
        tree.without((SEAL, POSSESSION, "", TEST), log),
        tree.without((SEAL, "Pin, then signature", "Pin and signature", TEST), log),
        tree.without((SEAL, POSSESSION, "or (", TEST), log),
        tree.without((SEAL, "no such guard", "", TEST), log),
        tree.without((SEAL, "import", "", TEST), log),
    ]

    assert said == ["held", "lost", "broken (2)", "missing", "ambiguous"]
    assert (tree.place / SEAL).read_text() == before == (ROOT / SEAL).read_text()
    assert tree.run(TEST, log) == PASSED
