"""SIGHUP at a server: what it takes over at once, what it names, and what it refuses."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pingmon import config as settings
from pingmon.config import Config, build
from pingmon.reload import Reload, changes
from pingmon_agent.wire.notify import Notifier
from tests.support.processes import Server, running_server, wait_for
from tests.support.systemd import listening

METRIC = "pingmon_server_config_last_reload_"


@pytest.fixture(autouse=True)
def _level_as_it_was() -> Iterator[None]:
    before = logging.getLogger("pingmon").level
    yield
    logging.getLogger("pingmon").setLevel(before)


def reload_of(file: Path, started_with: Config, **more: object) -> Reload:
    return Reload(started_with, lambda: settings.load(file, {}), **more)  # type: ignore[arg-type]


def test_the_level_of_the_log_is_taken_over_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing happens before the next look, and only once for each request."""
    file = tmp_path / "server.toml"
    file.write_text('[server]\nport = 9000\n[log]\nlevel = "debug"\n')
    reload = reload_of(file, build({"server": {"port": 8443}}, {}), now=lambda: 5.0)
    reload.look()
    assert "reloaded" not in caplog.text
    reload.ask()
    reload.look()
    reload.look()

    assert logging.getLogger("pingmon").level == logging.DEBUG
    assert caplog.text.count("configuration reloaded changed=server.port,log.level") == 1
    assert caplog.text.count("in force only after a restart: server.port") == 1
    assert (reload.successful, reload.succeeded_at) == (True, 5.0)
    reload.ask()
    reload.look()
    assert "configuration reloaded changed=server.port\n" in caplog.text


@pytest.mark.parametrize("text", ["[server]\nprot = 1\n", "nonsense", "[log]\nlevel = 'loud'\n", None])
def test_a_broken_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None) -> None:
    """One sentence, and the old settings go on; systemd hears that the reload is over, for the server is ready."""
    file, now = tmp_path / "server.toml", [5.0]
    if text is not None:
        file.write_text(text)
    with listening(tmp_path / "notify") as systemd:
        reload = reload_of(file, build({}, {}), notifier=Notifier(systemd.address), now=lambda: now[0])
        level, now[0] = logging.getLogger("pingmon").level, 6.0
        reload.ask()
        reload.look()
        told = [systemd.next(1.0), systemd.next(1.0)]

    assert (reload.successful, reload.succeeded_at) == (False, 5.0)
    assert logging.getLogger("pingmon").level == level
    assert len(caplog.records) == 1
    assert re.search(r"configuration not reloaded: .+; the settings that were loaded before stay in force", caplog.text)
    assert [lines and lines[0] for lines in told] == ["RELOADING=1", "READY=1"]
    file.write_text("")
    reload.ask()
    reload.look()
    assert (reload.successful, reload.succeeded_at) == (True, 6.0)


def test_a_bug_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The loop that looks also reads the directory."""
    reload = Reload(build({}, {}), lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    reload.ask()
    reload.look()

    assert not reload.successful
    assert "ZeroDivisionError" in caplog.text


def test_changes_are_named_by_their_keys() -> None:
    """As they stand in the file."""
    after = build({"probing": {"interval_s": 10, "mesh": False}, "limits": {"nat": "192.0.2.0/24"}}, {})

    assert changes(build({}, {}), after) == ["probing.interval_s", "probing.mesh", "limits.nat"]


def said(server: Server, words: str) -> list[str]:
    return [line for line in (server.directory / "server.log").read_text().splitlines() if words in line]


def metric(server: Server, name: str) -> float:
    page = str(server.session().request("/metrics")[1])
    return float(re.search(rf"^{METRIC}{name} (\S+)$", page, re.MULTILINE)[1])  # type: ignore[index]


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["eventlet", "gevent", "threading"])
def test_a_running_server_reads_its_file_again(tmp_path: Path, mode: str) -> None:
    """A good file, then a broken one, each at a signal; systemd hears of both, and the certificate is looked at too."""
    with listening(tmp_path / "notify") as systemd:
        environment = systemd.environment()
        with running_server(tmp_path / "server", mode=mode, environment=environment) as server:
            systemd.wait_for("READY=1")
            began = metric(server, "success_timestamp_seconds")
            assert metric(server, "successful") == 1
            good = server.config.read_text()
            server.config.write_text(good.replace("interval_s = 1", "interval_s = 2") + '[log]\nlevel = "debug"\n')
            hang_up(server)
            assert systemd.wait_for("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
            systemd.wait_for("READY=1")
            wait_for(lambda: said(server, "certificate reloaded"), "the certificate to be loaded again")
            assert len(said(server, "info configuration reloaded changed=probing.interval_s,log.level")) == 1
            assert len(said(server, "only after a restart: probing.interval_s")) == 1
            reloaded = metric(server, "success_timestamp_seconds")
            server.config.write_text(good + "[nonsense]\n")
            hang_up(server)
            systemd.wait_for("RELOADING=1")
            systemd.wait_for("READY=1")

            assert began < reloaded == metric(server, "success_timestamp_seconds")
            assert metric(server, "successful") == 0
            (line,) = said(server, "error configuration not reloaded")
            assert "[nonsense] is not a section of server.toml" in line
            assert server.visitor().request("/-/ready")[0] == 200


def hang_up(server: Server) -> None:
    assert server.child is not None
    os.kill(server.child.process.pid, signal.SIGHUP)
