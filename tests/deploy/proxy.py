"""The deploy tests in a pytest that is not in the namespaces of a bed: each is still one test with its own outcome.

All of them are run once, by one process inside (`command`); what is said about each there is said here, word for word.
What is not said is a failure, never a pass. Must not know: what the tests are about.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pingmon.cli.children import Child

# Given the file for its words and the tests to run, the words of the command line that runs them.
Command = Callable[[Path, Sequence[str]], list[str]]
_SILENCE_S = 900  # a run inside that says nothing for so long hangs


class ProxyItem(pytest.Item):
    """Stands where a test stood, with its name, place and marks."""

    def __init__(self, *, original: pytest.Item, **rest: Any) -> None:
        super().__init__(**rest)
        self.original = original
        self.own_markers = list(original.own_markers)
        self.keywords.update(dict.fromkeys((mark.name for mark in self.own_markers), True))
        self.add_marker(pytest.mark.timeout(0))  # each test has its own, inside

    def runtest(self) -> None:
        """Nothing happens here."""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.original.reportinfo()


class Proxies:
    """A pytest plugin: tests that use `fixture` are run by `command`, the rest as ever."""

    def __init__(self, fixture: str, command: Command, log: Path) -> None:
        self.fixture, self.command, self.log = fixture, command, log
        self.run: Run | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            ProxyItem.from_parent(item.parent, name=item.name, original=item)
            if item.parent is not None and self.fixture in getattr(item, "fixturenames", ())
            else item
            for item in items
        ]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Outermost: nothing that looks at marks again may turn a failure into something else."""
        report = yield
        if not isinstance(item, ProxyItem) or call.excinfo is not None:
            return report  # not ours, or it was skipped out here
        if self.run is None:
            chosen = [other.nodeid for other in item.session.items if isinstance(other, ProxyItem)]
            self.run = Run(item.config, self.command, chosen, self.log)
        return self.run.report(item, call.when)

    def pytest_unconfigure(self) -> None:
        if self.run is not None:
            self.run.close()


class Run:
    """The run inside: starts with this object, and its reports are asked for one by one."""

    def __init__(self, config: pytest.Config, command: Command, chosen: Sequence[str], log: Path) -> None:
        self.config, self.log = config, log
        self.pending = set(chosen)
        self.said: dict[tuple[str, str], pytest.TestReport] = {}
        self.lost: set[str] = set()
        self.place = tempfile.TemporaryDirectory(prefix="pingmon-deploy-")
        words = Path(self.place.name) / "words"
        words.touch()
        self.words = words.open(encoding="utf-8")
        self.line = ""
        self.child: Child | None = None
        if not hasattr(config, "workerinput"):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            self.child = Child("the run inside", command(words, chosen), log)

    def report(self, item: pytest.Item, when: str) -> pytest.TestReport:
        """What was said inside about one phase of a test, once it is said."""
        self._wait_for(lambda: (item.nodeid, when) in self.said)
        report = self.said.get((item.nodeid, when))
        if report is None:
            report = self._silence(item, when)
        if when == "teardown":
            self.pending.discard(item.nodeid)
            if not self.pending and report.passed:
                report = self._end(report)
        return report

    def close(self) -> None:
        """Nothing of it is left."""
        if self.child is not None:
            self.child.stop()
        self.words.close()
        self.place.cleanup()

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Until `ready`, or the run has ended, or has been silent for too long and is ended."""
        heard = time.monotonic()
        while not ready():
            running = self.child is not None and self.child.running  # asked before reading: its last words count
            if self._read():
                heard = time.monotonic()
            elif not running:
                return
            elif time.monotonic() - heard > _SILENCE_S:
                assert self.child is not None
                self.child.stop()
            else:
                time.sleep(0.05)

    def _read(self) -> bool:
        """Take in what was said since; whether there was anything."""
        said = self.words.read()
        *lines, self.line = (self.line + said).split("\n")
        for line in lines:
            data = json.loads(line)
            # JSON has no tuples, and pytest wants them here (the reason of a skip is one)
            for name in ("longrepr", "location"):
                data[name] = tuple(data[name]) if isinstance(data[name], list) else data[name]
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            self.said[report.nodeid, report.when] = report
        return bool(said)

    def _silence(self, item: pytest.Item, when: str) -> pytest.TestReport:
        """A failure, once per test."""
        outcome = "passed" if item.nodeid in self.lost else "failed"
        self.lost.add(item.nodeid)
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, self._why(), when)  # type: ignore[arg-type]

    def _why(self) -> str:
        if self.child is None:
            return "The deploy tests share one run and cannot be spread over workers: run them without -n."
        code = self.child.process.poll()
        said = self.child.last_lines(40)
        return f"Nothing was said about this by the run inside (exit code {code}, {self.log}):\n{said}"

    def _end(self, report: pytest.TestReport) -> pytest.TestReport:
        """The last report of the last test: a run that ended badly although all tests passed is a failure, too."""
        self._wait_for(lambda: False)
        code = self.child.process.poll() if self.child is not None else 0
        if code == 0 or self.lost or any(other.failed for other in self.said.values()):
            return report
        return pytest.TestReport(report.nodeid, report.location, {}, "failed", self._why(), "teardown")
