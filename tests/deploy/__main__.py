"""`make deploy-test` = `python -m tests.deploy`: images first, then the deploy tests in namespaces of their own.

    python -m tests.deploy [--suite bullseye ...] [--words FILE] [PYTEST ARGUMENT...]
    python -m tests.deploy --prepare | --shell

Nothing of it can outlive this process: it becomes the program that the namespaces hang on. Exit code: pytest's, or 1
with a sentence where this machine cannot do it; it never skips.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from . import releases, words
from .bed import images, newest, spaces

SUITES = ("bookworm", "trixie")
IMAGES = "PINGMON_BED_IMAGES"  # for the process inside: trees by name, as JSON
TOOLS = {
    "systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "ip": "iproute2", "ssh": "openssh-client",
    "apt-ftparchive": "apt-utils", "unshare": "util-linux", "nsenter": "util-linux", "journalctl": "systemd",
}  # fmt: skip


class RefusedError(Exception):
    """The tests cannot run here; the text says what to do."""


def check_machine() -> None:
    """Raises RefusedError where a bed cannot work."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise RefusedError("the deploy tests need Linux and root, for real hosts: run `sudo make deploy-test`.")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise RefusedError(f"the deploy tests need {', '.join(missing)}: run `apt-get install {' '.join(missing)}`.")
    if not (spaces.ROOT / "build/ansible-oldest/bin/ansible").exists():
        raise RefusedError("the deploy tests need Ansible in build/: run `make deploy-test`, which brings it.")
    if not Path("/dev/net/tun").exists():
        raise RefusedError("the deploy tests need /dev/net/tun: run `modprobe tun`, or give the container that device.")


def arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it is pytest's."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", allow_abbrev=False, description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="make the images and go")
    parser.add_argument("--shell", action="store_true", help="no tests: a shell beside the hosts")
    parser.add_argument("--words", type=Path, help="write what pytest reports to this file, for a pytest outside")
    parser.add_argument("--suite", action="append", default=[], help="make the image of this Debian release, too")
    return parser.parse_known_args(argv)


def main(argv: list[str]) -> int:
    """Comes back only where nothing is to be run, or nothing can be."""
    options, for_pytest = arguments(argv)
    if spaces.inside():  # a second bed: there is no network here to make anything with
        return start(options, for_pytest, os.environ[IMAGES])
    try:
        check_machine()
        trees = images.prepare({*SUITES, *options.suite})
        layer = newest.prepare(trees[newest.SUITE])
        releases.prepare()
    except (RefusedError, images.ImageError, releases.WheelhouseError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.prepare:
        return 0
    found = {**trees, "ansible-newest": layer}
    return start(options, for_pytest, json.dumps({name: str(tree) for name, tree in found.items()}))


def start(options: argparse.Namespace, for_pytest: list[str], trees: str) -> NoReturn:
    """Become the first process of a bed's namespaces."""
    environment = {IMAGES: trees}
    if options.shell:
        spaces.enter([sys.executable, "-m", "tests.deploy.shell"], environment)
    if options.words:
        environment[words.VARIABLE] = str(options.words.resolve())
        for_pytest += ["-p", words.__name__, "-p", "no:cacheprovider"]
    spaces.enter([sys.executable, "-m", "pytest", *with_place(for_pytest)], environment)


def with_place(for_pytest: list[str]) -> list[str]:
    """These arguments, and all deploy tests where they name no file."""
    named = any(Path(word.split("::")[0]).exists() for word in for_pytest if not word.startswith("-"))
    return ["-m", "deploy", *for_pytest, *([] if named else ["tests/deploy"])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
