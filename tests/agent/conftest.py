"""Shared by the agent's tests: namespaces that clean up after themselves, and a log that stays as it was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Authority
from .namespaces import Namespace
from .shelf import host, small
from .wires import raw_wire, wire

__all__ = ["host", "raw_wire", "small", "wire"]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that sets the log up in this process must not deafen the tests after it."""
    root, ours = logging.getLogger(), logging.getLogger("pingmon_agent")
    before = root.handlers[:], root.level, ours.level, threading.excepthook
    yield
    root.handlers[:], root.level, ours.level, threading.excepthook = before


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of the test."""
    return Authority(tmp_path / "ca")


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
