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


def below(pid: int) -> list[int]:
    """All processes that a process has started, and those that they have, and so on; its own children first."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []  # ended meanwhile
    return children + [process for child in children for process in below(child)]


def groups(process: int) -> list[Path]:
    """The control groups of the bed that this process belongs to."""
    tag = f"{cgroups.PREFIX}{Path(f'/proc/{process}/ns/net').stat().st_ino}"
    return [tree / tag for tree in cgroups.roots() if (tree / tag).exists()]


def second_bed() -> subprocess.Popen[str]:
    """Another bed with a shell that is told on stdin what to do."""
    argv, environment = [sys.executable, "-m", "tests.deploy", "--shell"], {**os.environ, "SHELL": "/bin/sh"}
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=spaces.ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)


def test_kill_9_takes_a_whole_bed_along_and_leaves_its_neighbour(bed: Bed) -> None:
    """The second bed has the same names and addresses as this one; only empty groups stay, for the next to sweep."""
    with second_bed() as second:
        assert second.stdin is not None
        assert second.stdout is not None
        second.stdin.write(f"ssh -F {bed.ssh_config} {bed['agent2'].address} hostname || echo it does not answer\n")
        second.stdin.flush()
        said = ""
        while said.strip() not in ("agent2", "it does not answer"):
            said = second.stdout.readline()
            assert said, "the second bed ended"
        there = below(second.pid)
        left = groups(there[0])
        second.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in there), "all processes to end")

    assert said == "agent2\n"
    assert len(there) > 20  # three systems, a switch, a shell
    assert len(left) == len(cgroups.roots())
    cgroups.sweep()
    assert not any(group.exists() for group in left)
    assert bed.each(facts.state) == ["running"] * 3


def test_a_bed_outside_of_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would put its devices into the machine's own network."""
    monkeypatch.delenv("PINGMON_BED_INSIDE", raising=False)
    with pytest.raises(RuntimeError, match="make deploy-test"):
        Bed({}, Path("unused"))
