"""Gets the wheels of a platform, with a pip of its own; what exists as source only is built, once and pure.

All is checked against the hashes of the locks. The venv and the store of files lie in the wheelhouse, and both may be
deleted. Must not know: archives, the project's own wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.utils import parse_wheel_filename
from wheelhouse_base import Refusal, digest_of, say, sha256
from wheelhouse_lock import GLIBC, Pin, Platform, hashes_in

# A list and no search: to build a package is to run its code on the controller.
SOURCES = frozenset({"flask-principal"})
# An index that answers 404 just lacks the package: pip asks all that it knows.
NO_NETWORK = re.compile(r"connection broken by|Could not fetch URL \S+: (?!404)|HTTP error|ConnectionError|ProxyError")


class Builder:
    """`locks`: folder of the lock files; `out`: the wheelhouse. Nothing is made before the first call."""

    def __init__(self, locks: Path, out: Path) -> None:
        self._locks = locks
        self._python = out / ".builder/bin/python"
        self._store = out / ".cache"
        self._log = self._store / "pip.log"

    def prepare(self) -> None:
        """Makes the venv with the locked pip and setuptools, if it is not there."""
        self._store.mkdir(exist_ok=True)
        self._forget_strangers()
        locks = [self._locks / "wheelhouse.txt", self._locks / "build.txt"]
        venv = self._python.parents[1]
        stamp, now = venv / ".complete", digest_of(locks, sys.version)
        if stamp.exists() and stamp.read_text() == now:
            return
        say(f"making a pip of our own in {venv}")
        if subprocess.call([sys.executable, "-m", "venv", "--clear", venv], stdout=sys.stderr):
            raise Refusal(
                f"{sys.executable} cannot make a venv in {venv}: run `apt install python3-venv` and try again."
            )
        if not self._pip("install", "--require-hashes", *(word for lock in locks for word in ("-r", str(lock)))):
            raise Refusal(self._sentence(None))
        stamp.write_text(now)

    def wheels(self, platform: Platform, pins: list[Pin], into: Path) -> None:
        """Puts one wheel for each pin into the folder; asks the package index only for what is not in the store."""
        here = ("--no-index", "--find-links", str(self._store))
        ready = [pin for pin in pins if pin.name not in SOURCES]
        if not self._download(platform, ready, into, *here) and not (
            self._download(platform, ready, self._store) and self._download(platform, ready, into, *here)
        ):
            raise Refusal(self._sentence(platform))
        for pin in pins:
            if pin.name in SOURCES:
                shutil.copy(self._built(platform, pin), into)

    def _download(self, platform: Platform, pins: list[Pin], into: Path, *where: str) -> bool:
        tags = [word for tag in platform.manylinux() for word in ("--platform", tag)]
        python = ["--implementation", "cp", "--python-version", platform.python, "--abi", platform.tag]
        return self._pip_for(pins, "download", "--only-binary", ":all:", "--dest", str(into), *python, *tags, *where)

    def _built(self, platform: Platform, pin: Pin) -> Path:
        """The wheel of a package that has none, kept for this source and this setuptools."""
        kept = self._store / f"built-{digest_of([self._locks / 'build.txt'], str(pin))[:16]}"
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=self._store) as place:
                # Without pip's own cache: what it built before, it built with another setuptools.
                how = ("--no-build-isolation", "--no-cache-dir", "--no-binary", pin.name, "--wheel-dir", place)
                if not self._pip_for([pin], "wheel", *how):
                    raise Refusal(self._sentence(platform))
                made = next(Path(place).glob("*.whl"))
                refuse_impure(made)
                done = Path(place) / "done"
                done.mkdir()
                repack(made, done / made.name)
                done.rename(kept)
        return next(kept.glob("*.whl"))

    def _forget_strangers(self) -> None:
        """Takes out of the store what no lock names: older versions, and what somebody changed."""
        known = hashes_in(self._locks.glob("*.txt"))
        for file in self._store.glob("*.whl"):
            if sha256(file.read_bytes()) not in known:
                file.unlink()

    def _pip_for(self, pins: list[Pin], verb: str, *words: str) -> bool:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as lines:
            lines.write("\n".join(map(str, pins)) + "\n")
            lines.flush()
            return self._pip(verb, "--require-hashes", "--no-deps", "-r", lines.name, *words)

    def _pip(self, *words: str) -> bool:
        """Whether it succeeded; what it said is in the log."""
        environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        with self._log.open("w") as log:
            command = [str(self._python), "-m", "pip", *words, "-vv"]
            return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment) == 0

    def _sentence(self, platform: Platform | None) -> str:
        """Why the last call of pip failed, and what to do."""
        said = self._log.read_text()
        if "DO NOT MATCH THE HASHES" in said:
            named = re.search(r"^ +(\S+==[\w.!+-]+)", said.partition("DO NOT MATCH")[2], re.MULTILINE)
            return (
                f"{named[1] if named else 'a file'} from the package index is not what requirements/ has locked: "
                f"install nothing, and find out who changed which of the two ({self._log} has both hashes)."
            )
        if NO_NETWORK.search(said):
            return (
                "the package index cannot be reached: check the network, the proxy and `pip config list` on this "
                f"machine, then run it again ({self._log} has the details)."
            )
        missing = re.search(r"No matching distribution found for (\S+)", said)
        if missing and platform:
            return (
                f"{missing[1]} has no wheel for {platform.tag} on {platform.arch} with glibc 2.{GLIBC}: lock a version "
                f"in requirements/{platform.role}.txt that has one, or leave hosts with that Python out; if it comes "
                "as pure Python source only, add it to SOURCES in wheelhouse_pip.py."
            )
        return f"pip failed, and {self._log} says why: put that right and run it again."


def refuse_impure(wheel: Path) -> None:
    """What is built on the controller goes to any host, so it has to be good for any."""
    if not all(tag.abi == "none" and tag.platform == "any" for tag in parse_wheel_filename(wheel.name)[3]):
        raise Refusal(
            f"{wheel.name} was built here and runs on this kind of machine only: lock a version that has wheels, and "
            "take it out of SOURCES in wheelhouse_pip.py."
        )


def repack(wheel: Path, to: Path) -> None:
    """The same files without times, rights and compression: those depend on the machine, its umask and its zlib."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            new.writestr(entry, old.read(name))
