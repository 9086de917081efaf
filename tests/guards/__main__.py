"""`python -m tests.guards [NUMBER...]`: every guard is taken out of a copy of the tree, and its test must fail there.

A guard that can be removed without a red test is not held by anything. Two copies work side by side; first each test
must pass in a whole tree, for one that always fails holds nothing. Each line says what the test missed; all that
pytest said is in build/guards. Exit code 1 names the survivors.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from .catalogue import GUARDS, ROOT, words_of
from .tree import PASSED, Tree

T = TypeVar("T")
COPIES = 2
SLOWEST = 8
LOGS = ROOT / "build" / "guards"


class Work:
    """Some copies of the tree, each used by one task at a time."""

    def __init__(self, folder: Path) -> None:
        self._began = time.monotonic()
        self._trees = [Tree(ROOT, folder / f"tree-{number}") for number in range(COPIES)]
        self._free: SimpleQueue[Tree] = SimpleQueue()
        for tree in self._trees:
            self._free.put(tree)

    def each(self, items: Iterable[T], task: Callable[[Tree, T], str]) -> dict[T, tuple[str, float]]:
        """{item: (what `task` said, seconds it took)}; a line for each as soon as it is known."""
        done = {}
        pool = ThreadPoolExecutor(COPIES)
        waiting = {pool.submit(self._one, item, task): item for item in items}
        try:
            for future in as_completed(waiting):
                item = waiting[future]
                done[item] = said, seconds = future.result()
                elapsed = time.monotonic() - self._began
                print(f"{elapsed:6.0f} s  {said:<9} {seconds:5.1f} s  {_title(item)}", flush=True)
        finally:  # also after Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            for tree in self._trees:
                tree.stop()
            pool.shutdown()
        return done

    def _one(self, item: T, task: Callable[[Tree, T], str]) -> tuple[str, float]:
        tree, began = self._free.get(), time.monotonic()
        try:
            return task(tree, item), time.monotonic() - began
        finally:
            self._free.put(tree)


def main(chosen: list[int]) -> int:
    """0 if each test passes in a whole tree, and fails in the one without its guard."""
    numbers = chosen or list(range(1, len(GUARDS) + 1))
    LOGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pingmon-guards-") as folder:
        work = Work(Path(folder))
        whole = _passing(work, {GUARDS[number - 1][3] for number in numbers})
        sound = [number for number in numbers if GUARDS[number - 1][3] in whole]
        found = work.each(sound, lambda tree, number: tree.without(GUARDS[number - 1], LOGS / f"{number}.log"))
    survivors = [number for number in numbers if found.get(number, ("",))[0] != "held"]
    slowest = sorted(found, key=lambda number: -found[number][1])[:SLOWEST]
    print("slowest:", *(f"  {found[n][1]:5.1f} s  guard {n}: {GUARDS[n - 1][3]}" for n in slowest), sep="\n")
    if survivors:
        print("survivors:", *(f"  guard {number}: {GUARDS[number - 1][3]}" for number in survivors), sep="\n")
    print(f"RESULT guards guards={len(numbers)} survivors={len(survivors)}")
    return 1 if survivors else 0


def _passing(work: Work, tests: set[str]) -> set[str]:
    """Those of `tests` that pass in a whole tree; of one file all at once, and where that fails one by one."""
    files: dict[str, set[str]] = {}
    for test in tests:
        files.setdefault(test.partition(" ")[0], set()).add(test)
    together = {
        f"{file} {' or '.join(sorted({w for t in some for w in words_of(t)[1]}))}": some
        for file, some in sorted(files.items())
    }
    green = _green(work, together)
    rest = {test for text, some in together.items() if text not in green for test in some}
    return (tests - rest) | _green(work, rest)


def _green(work: Work, tests: Iterable[str]) -> set[str]:
    done = work.each(tests, lambda tree, test: "passes" if tree.run(test, _log(test)) == PASSED else "fails")
    return {test for test, (said, _) in done.items() if said == "passes"}


def _log(test: str) -> Path:
    return LOGS / f"whole-{test.replace('/', '-').replace(' ', '-')[:120]}.log"


def _title(item: object) -> str:
    if not isinstance(item, int):
        return f"whole tree: {str(item)[:100]}"
    file, guard, *_ = GUARDS[item - 1]
    return f"guard {item:>3} {file}: {guard.strip().splitlines()[0][:60]} -> {_reason(LOGS / f'{item}.log')[:80]}"


def _reason(log: Path) -> str:
    """What pytest shows first: a guard must be missed for what it guards, not because the machine was slow."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    shown = (line[1:].strip() for line in lines if line.startswith("E  ") and "Warning" not in line)
    return next(shown, "nothing")


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]]))
