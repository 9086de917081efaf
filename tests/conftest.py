"""Rules for all tests: what needs root says so where there is none, and `--no-skips` makes every skip a failure."""

from __future__ import annotations

import os
import shutil
import socket

import pytest

_skipped: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail the run if any test was skipped (.ci/run)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return  # `make test` brings everything; what is missing all the same shall fail, not hide
    lacking = {"root": "needs root for network namespaces: run `sudo make test`"}
    if not _may_ping():
        lacking["e2e"] = (
            "this user may not send pings: run `sysctl -w net.ipv4.ping_group_range='0 2147483647'` as root"
        )
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
        if "browser" in getattr(item, "fixturenames", ()) and shutil.which("chromedriver") is None:
            item.add_marker(pytest.mark.skip(reason="needs Chromium: run `apt-get install chromium-driver` as root"))


def _may_ping() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """pytest reads its exit status after this hook, so a run that skipped something ends with 1 instead of 0."""
    if _skipped and session.config.getoption("--no-skips") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _skipped and config.getoption("--no-skips"):
        terminalreporter.write_line(f"{len(_skipped)} skipped, and --no-skips counts that as failure:", red=True)
        for nodeid in _skipped:
            terminalreporter.write_line(f"  {nodeid}", red=True)
