"""Shared by the agent's tests: namespaces that clean up after themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .namespaces import Namespace


@pytest.fixture
def make_namespace() -> Iterator[Callable[[], Namespace]]:
    """Makes namespaces that are gone after the test."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()
