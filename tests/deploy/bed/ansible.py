"""Ansible as a user runs it from a checkout, in three versions, against the hosts of a bed.

    played = ansible.play("playbooks/site.yml", "--check", core="oldest")
    played.recap["agent1"]["changed"], played.output, played.seconds

Must not know: what the playbooks do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .spaces import ROOT

Core = Literal["main", "oldest", "newest"]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RECAP = re.compile(r"^(\S+)\s+: (ok=\d+\s.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Played:
    """One run: its exit code, all that it printed, what the recap counts (ok, changed, unreachable, failed, skipped,
    rescued, ignored) by host, and how long it took.
    """

    code: int
    output: str
    recap: dict[str, dict[str, int]]
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        return {host: counts["changed"] for host, counts in self.recap.items()}


class AnsibleFailed(AssertionError):  # noqa: N818 - it is a test's assertion, not an error of the bed
    """A run that should have passed did not; the text ends with the end of its output."""


@dataclass(frozen=True)
class Installation:
    """One version of ansible-core: the folder of its programs, and the root it lives in (None: here)."""

    programs: Path
    root: Path | None = None

    def argv(self, program: str, environment: Mapping[str, str]) -> list[str]:
        """The words that start a program of it at the root of the checkout, with this environment alone."""
        words = [f"{name}={value}" for name, value in environment.items()]
        into = ["chroot", str(self.root)] if self.root else []
        return [*into, "env", "-i", "-C", str(ROOT), f"PATH={self.programs}:{_PATH}", *words, program]


class Ansible:
    """Runs below `place` (a folder per version for its sockets and temporary files), keeps each output in `logs`."""

    def __init__(self, installations: Mapping[Core, Installation], inventory: Path, place: Path, logs: Path) -> None:
        self.installations, self.inventory, self.place, self.logs = installations, inventory, place, logs
        self.runs = 0
        self.played: list[tuple[str, tuple[str, ...]]] = []  # each playbook and the words after it

    def play(
        self,
        playbook: str | Path,
        *words: str,
        core: Core = "main",
        inventory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 900,
    ) -> Played:
        """`ansible-playbook PLAYBOOK WORD...` at the root of the checkout; AnsibleFailed if it fails and `check`."""
        self.played.append((Path(playbook).name, words))
        argv = ["-i", str(inventory or self.inventory), str(playbook), *words]
        return self._run("ansible-playbook", argv, core, environment or {}, check, timeout_s)

    def module(
        self, name: str, arguments: str = "", *, hosts: str = "all", core: Core = "main", check: bool = True
    ) -> Played:
        """One module, as root: `ansible HOSTS -b -m NAME -a ARGUMENTS`. It has no recap."""
        argv = ["-i", str(self.inventory), hosts, "-b", "-m", name, *(["-a", arguments] if arguments else [])]
        return self._run("ansible", argv, core, {}, check, 120)

    def _run(
        self, program: str, words: Sequence[str], core: Core, more: Mapping[str, str], check: bool, timeout_s: float
    ) -> Played:
        argv = [*self.installations[core].argv(program, {**self._environment(core), **more}), *words]
        began = time.monotonic()
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        seconds = time.monotonic() - began
        self._keep(" ".join([program, *words]), core, done.stdout)
        if check and done.returncode != 0:
            raise AnsibleFailed(f"{program} ({core}) ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return Played(done.returncode, done.stdout, recap(done.stdout), seconds)

    def _environment(self, core: Core) -> dict[str, str]:
        """Nothing of the developer's own settings; connections are new in each run, for hosts lose power in between."""
        home = self.place / f"ansible-{core}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home / "cp", ignore_errors=True)
        own = {"HOME": str(home), "ANSIBLE_HOME": str(home), "ANSIBLE_NOCOLOR": "1", "LANG": "C.UTF-8"}
        settings = ROOT / "ansible.cfg"
        return {**own, "ANSIBLE_CONFIG": str(settings)} if settings.exists() else own

    def _keep(self, command: str, core: Core, output: str) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.runs += 1
        (self.logs / f"ansible-{self.runs:03}-{core}.log").write_text(f"$ {command}\n{output}")


def recap(output: str) -> dict[str, dict[str, int]]:
    """The counts by host of PLAY RECAP, empty where there is none."""
    _, _, last = output.rpartition("PLAY RECAP")
    return {
        host: {name: int(count) for name, count in (word.split("=") for word in counts.split())}
        for host, counts in _RECAP.findall(last)
    }
