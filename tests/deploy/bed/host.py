"""One host: a Debian system with its own systemd, sshd, network and disk layers, run by systemd-nspawn.

    host.boot(); host.run("systemctl", "start", "x.service"); host.cut_power(); host.boot()

A host that asks for a reboot gets one. Must not know: what is deployed on it, who its neighbours are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import cgroups
from .cable import Cable
from .layers import Layers
from .ready import ReadinessSocket

BOOT_DEADLINE_S = 60.0
_ASKED_FOR_REBOOT = 133
# What a hardened unit and a role may need of the kernel; never CAP_SYS_TIME, the clock is everybody's.
_CAPABILITIES = "CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON"
_NSPAWN_ENV = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}


class HostError(Exception):
    """A host did what no test asked for; the text says which and where its console is."""


class Host:
    """Use `disk.root` to look at its files from outside, in any state."""

    def __init__(self, name: str, address: str, image: Path, place: Path) -> None:
        self.name, self.address, self.place = name, address, place
        self.disk, self.cable = Layers(place, image), Cable(name, address)
        self.console = place / "console.log"
        self.boots = 0
        self.leader = 0  # process id of its first process, 0 while it is down
        self.failure = ""  # why it went down unasked
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()  # a test and the watcher must not start or stop it at the same time
        self._watcher: threading.Thread | None = None

    # ---- power

    def boot(self) -> float:
        """Start it and wait until its systemd says it is up; seconds that took. HostError if it does not come up."""
        with self._lock:
            if self.up:
                raise HostError(f"{self.name} is up already: shut_down() or cut_power() first.")
            began = time.monotonic()
            self.cable.plug_in()
            with ReadinessSocket(self.place / "notify") as ready:
                self._process = self._start(ready.path)
                try:
                    self.leader = ready.wait(BOOT_DEADLINE_S)
                except TimeoutError:
                    self._process.kill()
                    raise HostError(f"{self.name} was not up within {BOOT_DEADLINE_S:g} s: {self.tail()}") from None
            self.boots += 1
            self.failure = ""
            self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
            self._watcher.start()
            return time.monotonic() - began

    def shut_down(self) -> None:
        """As a person would: units are stopped in order."""
        with self._lock:
            process, self.leader = self._process, 0
            if process is not None and process.poll() is None:
                process.terminate()  # nspawn makes an orderly shutdown of it
                process.wait(60)
            self.cable.pull_out()

    def cut_power(self) -> None:
        """From one moment to the next: no unit is stopped, no connection closed. (What was written stays written.)"""
        with self._lock:
            process, leader, self.leader = self._process, self.leader, 0
            self.cable.pull_out()
            if process is not None and process.poll() is None:
                os.kill(leader, signal.SIGKILL)
                process.wait(60)

    def reboot(self) -> float:
        """Shut down and boot; seconds."""
        began = time.monotonic()
        self.shut_down()
        self.boot()
        return time.monotonic() - began

    @property
    def up(self) -> bool:
        """Whether it runs; while it reboots by itself, no."""
        return self.leader != 0 and self._process is not None and self._process.poll() is None

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Boot it again if it ended by itself to do so; remember it if it ended by itself for another reason."""
        code = process.wait()
        with self._lock:
            if process is not self._process or self.leader == 0:
                return  # a test ended it
            self.leader = 0
            self.cable.pull_out()
            self.failure = f"{self.name} ended by itself with code {code}"
            if code != _ASKED_FOR_REBOOT:
                return
            try:
                self.boot()
            except HostError as error:
                self.failure = str(error)
                print(error, file=sys.stderr)

    def _start(self, notify: Path) -> subprocess.Popen[bytes]:
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes"]
        argv += ["-M", self.name, "-D", str(self.disk.root), f"--network-namespace-path={self.cable.namespace}"]
        argv += [f"--capability={_CAPABILITIES}", "--system-call-filter=bpf", "--resolv-conf=off", "--timezone=off"]
        argv += ["--link-journal=no", "--console=pipe", "--boot"]
        with self.console.open("ab") as console:
            return subprocess.Popen(
                cgroups.entering(cgroups.own_tag(), self.name, argv),
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **_NSPAWN_ENV, "NOTIFY_SOCKET": str(notify)},
            )  # fmt: skip

    # ---- what a test asks of it

    def run(
        self, *argv: str, check: bool = True, timeout_s: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it as root, without ssh; HostError with what it said where `check` and it fails."""
        if not self.up:
            raise HostError(f"{self.name} is down. {self.failure}".strip())
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", "env", "-i", *_ROOT, *argv],
            input=stdin, text=True, capture_output=True, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise HostError(f"{' '.join(argv)} on {self.name} ended with {done.returncode}: {said}")
        return done

    def read(self, path: str) -> str:
        """A file of it, in any state of power."""
        return self.inside(path).read_text("utf-8")

    def inside(self, path: str) -> Path:
        """Where an absolute path of the host is on this machine. Links are not followed: they lead out of the host."""
        return self.disk.root / path.lstrip("/")

    def tail(self, lines: int = 15) -> str:
        """The end of its console."""
        return "\n".join(self.console.read_text("utf-8", "replace").splitlines()[-lines:])


_ROOT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8",
)  # fmt: skip
