"""Two beds side by side, and the end of one of them by `kill -9`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import wait_for

from .bed import cgroups, facts, spaces
from .bed.bed import Bed


def descendants(top: int) -> set[Path]:
    """The directories in /proc of all processes below this one."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    found = {top}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return {Path("/proc") / str(pid) for pid in found - {top}}


def groups() -> set[Path]:
    return {group for tree in cgroups.roots() for group in tree.glob(f"{cgroups.PREFIX}*")}


def test_kill_9_takes_a_whole_bed_along_and_leaves_its_neighbour(bed: Bed) -> None:
    """The second bed has the same names and addresses as this one; only empty groups stay, for the next to sweep."""
    own = groups()
    second = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy", "--shell"], cwd=spaces.ROOT, env={**os.environ, "SHELL": "/bin/sh"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with second:
        assert second.stdin is not None
        assert second.stdout is not None
        second.stdin.write(f"ssh -F {bed.ssh_config} {bed['agent2'].address} hostname || echo it does not answer\n")
        second.stdin.flush()
        said = ""
        while said.strip() not in ("agent2", "it does not answer"):
            said = second.stdout.readline()
            assert said, "the second bed ended"
        there = descendants(second.pid)
        second.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(process.exists() for process in there), "all processes to end")

    assert said == "agent2\n"
    assert len(there) > 20  # three systems, a switch, a shell
    assert groups() > own
    cgroups.sweep()
    assert groups() == own
    assert bed.each(facts.state) == ["running"] * 3


def test_a_bed_outside_of_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would put its devices into the machine's own network."""
    monkeypatch.delenv("PINGMON_BED_INSIDE", raising=False)
    with pytest.raises(RuntimeError, match="make deploy-test"):
        Bed({}, Path("unused"))
