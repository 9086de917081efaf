"""Fixtures of the deploy tests. What uses `bed` runs in the namespaces of `python -m tests.deploy` only."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.bench.facts import publish

from .bed import spaces
from .bed.ansible import Ansible
from .bed.bed import Bed
from .fleet import LOGS, handed_in, make_ansible, make_bed
from .proxy import Proxies

PATIENCE_S = 600


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


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """Three hosts for all tests, booted; a test that changes them puts them back (`rollback`, `reset`)."""
    shutil.rmtree(LOGS, ignore_errors=True)
    with make_bed(handed_in()) as running:
        yield running


@pytest.fixture(scope="session")
def ansible(bed: Bed) -> Ansible:
    """Ansible on the controller, in all versions."""
    return make_ansible(bed, handed_in())


@pytest.fixture
def network(bed: Bed) -> Iterator[Bed]:
    """The bed with a network that is whole before and after."""
    bed.heal()
    yield bed
    bed.heal()


@pytest.fixture(scope="session")
def result(bed: Bed) -> Iterator[dict[str, float]]:
    """What the tests put in here is printed at the end as `RESULT deploy key=value ...`."""
    keys: dict[str, float] = {"hosts": len(bed.hosts)}
    yield keys
    publish("deploy", keys, {})
