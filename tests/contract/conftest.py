"""Servers that the tests of one module share: one in each async mode for the main flow, one for everything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.processes import Server, running_server

MODES = ("eventlet", "gevent", "threading")


@pytest.fixture(scope="module", params=MODES)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server in each async mode, without agents; targets are left to the test."""
    with running_server(tmp_path_factory.mktemp(request.param), mode=request.param) as server:
        server.session()
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server in the default mode with one target, `here` at 127.0.0.1."""
    with running_server(tmp_path_factory.mktemp("server")) as server:
        server.admin("targets", "add", "here", "127.0.0.1")
        server.session()
        yield server
