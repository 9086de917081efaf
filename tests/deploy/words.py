"""What pytest reports, written down for a pytest in other namespaces: a line of JSON per report, in PINGMON_BED_WORDS.

A plugin (`-p tests.deploy.words`) of the run inside; proxy.py reads it outside. Must not know: which tests there are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "PINGMON_BED_WORDS"


class Words:
    """Appends each report to a file as it comes."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.file = path.open("a", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.file.write(json.dumps(said, default=str) + "\n")
        self.file.flush()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Words(config, Path(os.environ[VARIABLE])))
