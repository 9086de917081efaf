"""The namespaces that a bed lives in: network, mounts and processes of its own. Whatever ends the program that
`enter` becomes ends every host with it, `kill -9` included, and leaves no mount, device or process behind.

Must not know: hosts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[3]
HOME = Path("/run/pingmon-bed")  # a tmpfs of this mount namespace: each bed sees its own
_INSIDE = "PINGMON_BED_INSIDE"
_PRIVATE = (Path("/run/netns"), Path("/run/systemd/nspawn"), HOME)
_SPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


def inside() -> bool:
    """Whether this process runs in the namespaces of a bed."""
    return _INSIDE in os.environ


def must_be_inside() -> None:
    """RuntimeError outside: there a bed would put its devices into the machine's own network."""
    if not inside():
        raise RuntimeError("a bed needs namespaces of its own: run `make deploy-test`, or `python -m tests.deploy`.")


def enter(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become `argv`, run by this module as first process of fresh namespaces; its exit code is the result."""
    first = [sys.executable, "-m", "tests.deploy.bed.spaces", *argv]
    os.chdir(ROOT)
    os.execvpe("unshare", ["unshare", *_SPACES, *first], {**os.environ, **environment, _INSIDE: "1"})


def _furnish() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in _PRIVATE:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=60%", "bed", str(place)], check=True)


def main(argv: list[str]) -> int:
    """The first process: starts `argv`, reaps what others leave, ends when `argv` does; exit code as a shell's."""
    _furnish()
    child = os.posix_spawnp(argv[0], argv, os.environ)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
