"""Fixtures of the web tests: the application without sockets, and a browser before a server with a past."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chromium import Chromium
from .people import EMAIL, PASSWORD
from .site import Site, open_site
from .stage import Stage, small


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The real application, empty but for one user per role."""
    site = open_site(tmp_path)
    yield site
    site.application.services.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Six agents and eight targets with an hour behind them, reporting on."""
    stage = small(tmp_path_factory.mktemp("small"))
    stage.server.start()
    try:
        with stage.feeding():
            yield stage
    finally:
        stage.server.stop()


@pytest.fixture(scope="module")
def browser(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser in which the first admin has been made by the one-time link."""
    browser = Chromium(tmp_path_factory.mktemp("profile"), stage.server.url)
    link = re.search(r"https://\S+/welcome/\S+", stage.server.cli("users", "create", "--admin").stdout)
    assert link
    browser.go(link.group())
    browser.fill("#email", EMAIL)
    browser.fill("#password", PASSWORD)
    browser.fill("#again", PASSWORD)
    browser.shot("welcome")
    browser.find("main button").click()
    browser.find("#grid")
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test starts in light colours on a wide screen, and ends with a silent console: no error, no violation."""
    browser: Chromium | None = request.getfixturevalue("browser") if "browser" in request.fixturenames else None
    if browser:
        browser.prefer("light")
        browser.size(1360, 860)
    yield
    if browser:
        assert browser.complaints() == []
