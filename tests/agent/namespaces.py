"""Network namespaces for tests (root): make, wire up, run a function inside, without root's rights if asked."""

from __future__ import annotations

import ctypes
import os
import platform
import secrets
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_SETRESUID = {"x86_64": 117, "aarch64": 147}
_NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One `ip netns`; loopback is up. Close it, and everything in it is gone."""

    def __init__(self) -> None:
        self.name = f"pmt-{secrets.token_hex(4)}"
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *args: str) -> None:
        """`ip ARGS` inside."""
        ip("-n", self.name, *args)

    def sysctl(self, key: str, value: str) -> None:
        """Set a per-namespace sysctl."""
        self.run(lambda: Path("/proc/sys", *key.split(".")).write_text(value))

    def run(self, work: Callable[[], T], *, unprivileged: bool = False) -> T:
        """Call `work` in a thread that lives in this namespace (and is nobody, with no capability, if asked)."""
        outcome: list[T] = []
        problem: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter(unprivileged)
                outcome.append(work())
            except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
                problem.append(err)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return outcome[0]

    def _enter(self, unprivileged: bool) -> None:
        handle = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _check(_libc.setns(handle, _CLONE_NEWNET))
        finally:
            os.close(handle)
        if unprivileged:  # by the bare system call, which changes this thread only
            _check(_libc.syscall(_SETRESUID[platform.machine()], _NOBODY, _NOBODY, _NOBODY))

    def close(self) -> None:
        """Take the namespace away."""
        ip("netns", "del", self.name)


def ip(*args: str) -> None:
    """Run `ip` and insist that it works."""
    subprocess.run(["ip", *args], check=True, capture_output=True)


def connect(one: Namespace, other: Namespace, prefix: str, prefix6: str = "") -> None:
    """A veth pair with addresses PREFIX.1 and PREFIX.2 of a /24, and PREFIX6::1 and ::2 of a /64 if given."""
    here, there = f"v{secrets.token_hex(4)}", f"v{secrets.token_hex(4)}"
    one.ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", other.name)
    for space, name, host in ((one, here, 1), (other, there, 2)):
        space.ip("addr", "add", f"{prefix}.{host}/24", "dev", name)
        if prefix6:
            space.ip("addr", "add", f"{prefix6}::{host}/64", "dev", name, "nodad")
        space.ip("link", "set", name, "up")


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
