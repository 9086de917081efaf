"""Fixtures of the deploy tests. What uses `bed` runs in the namespaces of `python -m tests.deploy` only."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.bench.facts import publish

from .bed import inventory, newest, spaces
from .bed.ansible import Ansible, Core, Installation
from .bed.bed import Bed
from .first import First, deploy
from .fleet import Fleet
from .proxy import Proxies
from .releases import WHEELHOUSE

FLEET = {"server": "bookworm", "agent1": "bookworm", "agent2": "trixie"}
PATIENCE_S = 600
RESULTS: list[First] = []
LOGS = spaces.ROOT / "build/deploy-logs"


def inside(words: Path, tests: Sequence[str]) -> list[str]:
    """How a pytest outside has these tests run in a bed."""
    return [sys.executable, "-m", "tests.deploy", "--words", str(words), *tests]


def pytest_configure(config: pytest.Config) -> None:
    if not spaces.inside():
        config.pluginmanager.register(Proxies("bed", inside, spaces.ROOT / "build/deploy.log"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the bed is a deploy test; a first deploy takes longer than other tests may."""
    for item in items:
        if "bed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.deploy)
            item.add_marker(pytest.mark.root)
            if spaces.inside() and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(PATIENCE_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line that design.md asks for, and the same in build/bench."""
    for seen in RESULTS:
        terminalreporter.ensure_newline()
        publish("deploy", seen.result(len(FLEET)), {"live_after_s": seen.live_after_s})


@pytest.fixture(scope="session")
def images() -> dict[str, Path]:
    """A Debian tree by release, and `ansible-newest`."""
    return {suite: Path(tree) for suite, tree in json.loads(os.environ["PINGMON_BED_IMAGES"]).items()}


@pytest.fixture(scope="session")
def bed(images: dict[str, Path]) -> Iterator[Bed]:
    """Three hosts for all tests; a test that changes them rolls back before or after."""
    shutil.rmtree(LOGS, ignore_errors=True)
    with Bed({name: images[suite] for name, suite in FLEET.items()}, LOGS) as running:
        yield running


@pytest.fixture(scope="session")
def ansible(bed: Bed, images: dict[str, Path]) -> Ansible:
    """Ansible on the controller, in all versions: build/ansible, build/ansible-oldest, and the newest on Debian 13."""
    root = newest.mount(images["ansible-newest"], images[newest.SUITE], bed.place / "newest")
    installations: dict[Core, Installation] = {
        "main": Installation(spaces.ROOT / "build/ansible/bin"),
        "oldest": Installation(spaces.ROOT / "build/ansible-oldest/bin"),
        "newest": Installation(newest.BIN, root),
    }
    return Ansible(installations, bed.inventory, bed.place, LOGS)


@pytest.fixture
def network(bed: Bed) -> Iterator[Bed]:
    """The bed with a network that is whole before and after."""
    bed.heal()
    yield bed
    bed.heal()


@pytest.fixture(scope="session")
def fleet(bed: Bed, ansible: Ansible) -> Fleet:
    """pingmon on all hosts, from bare ones by site.yml; tests use it in the order of their files."""
    bed.reset()
    variables = {
        "pingmon_address": "{{ ansible_host }}",
        "pingmon_server_address": bed["server"].address,
        "pingmon_server_targets": [{"name": "server", "address": bed["server"].address}],
        "pingmon_agent_start_spread_s": 1,
        "pingmon_wheelhouse_dir": str(WHEELHOUSE),
    }
    inventory.write_inventory(bed.inventory.parent, bed.hosts.values(), bed.ssh_config, variables=variables)
    fleet = Fleet(bed, ansible)
    deploy(fleet)
    RESULTS.append(fleet.first)
    return fleet
