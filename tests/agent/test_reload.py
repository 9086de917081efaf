"""SIGHUP at an agent: what it takes over at once, what it names, and what it refuses."""

from __future__ import annotations

import logging
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from pingmon_agent import config as settings
from pingmon_agent.policy import Policy, policy_of
from pingmon_agent.reload import Reload
from pingmon_agent.wire.notify import Notifier
from tests.support.processes import Agent, free_port, wait_for
from tests.support.systemd import listening

from .test_service import alone, log_of

GOOD = '[server]\nurl = "wss://192.0.2.1:8443"\nca_file = "{ca}"\nidentity = "' + "m" * 32 + '"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text("not looked into here")
    made = tmp_path / "agent.toml"
    made.write_text(GOOD.format(ca=tmp_path / "ca.pem"))
    return made


def reload_of(file: Path, notifier: Notifier | None = None) -> Reload:
    started = settings.load(file, {})
    return Reload(started, Policy(), lambda: settings.load(file, {}), notifier or Notifier())


def test_the_level_of_the_log_is_taken_over_and_the_rest_is_named(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By its keys, and what has been taken over is no change the next time."""
    reload = reload_of(file)
    file.write_text(file.read_text() + '[probe]\ntimeout_ms = 900\n[log]\nlevel = "debug"\n')
    reload.run()

    assert logging.getLogger("pingmon_agent").level == logging.DEBUG
    assert "configuration reloaded changed=probe.timeout_ms,log.level\n" in caplog.text
    assert "only after a restart: probe.timeout_ms\n" in caplog.text
    reload.run()
    assert "configuration reloaded changed=probe.timeout_ms\n" in caplog.text


@pytest.mark.root
def test_new_rules_of_the_policy_are_named(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are read at the start only, and belong to root."""
    rules = file.with_name("policy.toml")
    rules.write_text("max_targets = 7\n")
    file.write_text(file.read_text() + f'[probe]\npolicy_file = "{rules}"\n')
    started = settings.load(file, {})
    reload = Reload(started, policy_of(str(rules)), lambda: settings.load(file, {}), Notifier())
    reload.run()
    assert "restart" not in caplog.text
    rules.write_text("max_targets = 8\n")
    reload.run()

    assert "only after a restart: the rules of the policy file\n" in caplog.text


@pytest.mark.parametrize("text", ["nonsense", '[log]\nlevel = "loud"\n', '[probe]\npolicy_file = "/nowhere.toml"\n'])
def test_a_broken_file_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Nor does a policy that cannot be read; one sentence says why, and systemd hears that the reload is over."""
    with listening(file.with_name("notify")) as systemd:
        reload = reload_of(file, Notifier(systemd.address))
        began, level = reload.succeeded_at, logging.getLogger("pingmon_agent").level
        file.write_text(file.read_text() + text)
        reload.run()
        told = [systemd.next(1.0), systemd.next(1.0)]

    assert (reload.successful, reload.succeeded_at) == (False, began)
    assert logging.getLogger("pingmon_agent").level == level
    assert len(caplog.records) == 1
    assert "configuration not reloaded: " in caplog.text
    assert [lines and lines[0] for lines in told] == ["RELOADING=1", "READY=1"]


def hang_up(agent: Agent) -> None:
    assert agent.child is not None
    os.kill(agent.child.process.pid, signal.SIGHUP)


@pytest.mark.e2e
def test_a_running_agent_reads_its_file_again(tmp_path: Path) -> None:
    """A good file, then a broken one, each at a signal; it goes on measuring either way."""
    port = free_port()
    with listening(tmp_path / "notify") as systemd, alone(tmp_path, systemd) as agent:
        systemd.wait_for("READY=1")
        good = agent.config.read_text().replace('[metrics]\nlisten = ""', f'[metrics]\nlisten = "127.0.0.1:{port}"')
        agent.config.write_text(good + '[log]\nlevel = "debug"\n')
        hang_up(agent)
        assert systemd.wait_for("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        systemd.wait_for("READY=1")
        wait_for(lambda: "configuration reloaded" in log_of(agent), "the log to say so")
        assert "info configuration reloaded changed=metrics.listen,log.level\n" in log_of(agent)
        assert "warning settings that are in force only after a restart: metrics.listen\n" in log_of(agent)
        agent.config.write_text(good + "[nonsense]\n")
        hang_up(agent)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")

        assert "error configuration not reloaded: unknown section [nonsense]" in log_of(agent)
        assert systemd.fed_for(2.0, 1.5)


@pytest.mark.e2e
def test_the_agent_exports_how_its_last_reload_went(tmp_path: Path) -> None:
    """1 from the start on, 0 after a broken file."""
    port = free_port()
    name = "pingmon_agent_config_last_reload_successful"

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    with listening(tmp_path / "notify") as systemd, alone(tmp_path, systemd, metrics=f"127.0.0.1:{port}") as agent:
        systemd.wait_for("READY=1")
        assert f"{name} 1.0\n" in page()
        agent.config.write_text("nonsense")
        hang_up(agent)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        assert f"{name} 0.0\n" in page()
