"""Fixtures of the web tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import Site, open_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The real application, empty but for one user per role."""
    site = open_site(tmp_path)
    yield site
    site.application.services.close()
