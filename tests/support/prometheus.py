"""A real Prometheus and promtool, as `.ci/setup.sh peers` fetched them (Debian's), or the system's.

with running_prometheus(tmp_path, config) as prometheus:
    wait_for(lambda: prometheus.ask("up == 1"), "a scrape")
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from pingmon.cli.children import Child
from tests.bench.peers import find

from .processes import free_port, wait_for


def program(name: str) -> str:
    """Its path; without it the test fails as root (`make test` brings it), and is skipped for others."""
    found = find(name)
    if found is None:
        say = pytest.fail if os.geteuid() == 0 else pytest.skip
        say(f"{name} is missing: run `sh .ci/setup.sh peers` or install the package prometheus")
    return str(found)


def promtool(*words: str, given: str = "", folder: Path | None = None) -> tuple[int, str]:
    """(exit code, all it said) of `promtool WORDS` with `given` on its standard input."""
    done = subprocess.run(
        [program("promtool"), *words], input=given, capture_output=True, text=True, timeout=100, cwd=folder
    )
    return done.returncode, done.stdout + done.stderr


@dataclass
class Prometheus:
    """One that runs, and answers on 127.0.0.1."""

    port: int
    child: Child

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, data: bytes | None = None) -> tuple[int, str]:
        """(status, body); (0, why) while nothing listens."""
        try:
            with build_opener(ProxyHandler({})).open(Request(self.url + path, data), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except URLError as error:
            return 0, str(error)

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series that answer `expr` now; AssertionError where Prometheus refuses it."""
        status, body = self.get("/api/v1/query?" + urlencode({"query": expr}))
        assert status == 200, f"{expr} was answered with {status}: {body}"
        return list(json.loads(body)["data"]["result"])


@contextmanager
def running_prometheus(folder: Path, config: Path) -> Iterator[Prometheus]:
    """An empty one that takes POST /-/reload and keeps its data and log in `folder`. Ended afterwards."""
    port = free_port()
    argv = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle", "--log.level=warn",
    ]  # fmt: skip
    child = Child("prometheus", argv, folder / "prometheus.log")
    found = Prometheus(port, child)
    try:
        wait_for(lambda: not child.running or found.get("/-/ready")[0] == 200, "Prometheus to be ready")
        assert child.running, f"Prometheus ended:\n{child.last_lines()}"
        yield found
    finally:
        child.stop()
