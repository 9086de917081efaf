"""All guards in one list, and what each of them says about the tree: is the guard there, is its test.

Must not know: how guards are taken out, or tests run.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from . import data, enrolment, policy, transport, wheelhouse
from .enrolment import Guard

ROOT = Path(__file__).parents[2]
GUARDS: list[Guard] = [*enrolment.GUARDS, *transport.GUARDS, *policy.GUARDS, *data.GUARDS, *wheelhouse.GUARDS]


def words_of(test: str) -> tuple[str, list[str]]:
    """(file, words) of the test that a guard names: `tests/a.py one or two` is all functions with one or two in it."""
    where, _, which = test.partition(" ")
    return where, which.split(" or ")


def faults_of(guard: Guard, root: Path = ROOT) -> Iterator[str]:
    """What has rotted of an entry, one sentence each."""
    file, text, without, test = guard
    source = (root / file).read_text() if (root / file).exists() else ""
    times = source.count(text)
    if times != 1:
        yield f"the guard stands {times} times in {file}: copy it from there again, with enough around it to be one"
    elif not _is_python(source.replace(text, without)):
        yield f"{file} is no Python without the guard, so any test fails: write what would run there"
    where, words = words_of(test)
    for word in words:
        if word in where or not any(word in name for name in _functions(root / where)):
            yield f"{word!r} chooses no test function of its own in {where}: name one that exists"


def _is_python(source: str) -> bool:
    try:
        compile(source, "without the guard", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


@functools.cache
def _functions(path: Path) -> tuple[str, ...]:
    """The test functions of a file, read and not run."""
    tree = ast.parse(path.read_text() if path.exists() else "")
    return tuple(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))
