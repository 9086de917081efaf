"""What systemd is told, and what is taken from the environment: over real sockets."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pingmon_agent.wire.notify import Notifier, left_out_of, taken_from
from tests.support.systemd import listening


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_as_one_message(tmp_path: Path, abstract: bool) -> None:
    """At a path and in the abstract namespace; what is told cannot add a line of its own."""
    address = f"@pingmon-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listening(address) as systemd:
        assert Notifier(address).say("READY=1", "STATUS=a\nWATCHDOG=1")

        assert systemd.next(1.0) == ["READY=1", "STATUS=a WATCHDOG=1"]


def test_reloading_names_the_moment(tmp_path: Path) -> None:
    """In microseconds of CLOCK_MONOTONIC, as systemd compares it with its own."""
    with listening(tmp_path / "notify") as systemd:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notifier(systemd.address).reloading()
        lines = systemd.next(1.0)

    assert lines is not None
    assert lines[0] == "RELOADING=1"
    assert (
        before <= int(lines[1].removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    )


def test_nobody_who_listens_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    """Outside of systemd nothing is sent and nothing said."""
    notifier = taken_from({})

    assert not notifier.active
    assert not notifier.say("READY=1")
    assert caplog.text == ""


def test_a_systemd_that_is_gone_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again only after it was there in between."""
    caplog.set_level(logging.WARNING)
    notifier = Notifier(str(tmp_path / "notify"))
    for _ in range(3):
        assert not notifier.say("WATCHDOG=1")

    assert len(caplog.records) == 1
    assert "systemd cannot be told WATCHDOG=1 (No such file or directory)" in caplog.text
    assert "NotifyAccess=" in caplog.text


def test_the_environment_is_used_up() -> None:
    """What this process starts afterwards is not taken for the service."""
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = taken_from(environ)

    assert (notifier.active, notifier.watchdog_s) == (True, 30.0)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("changes", "watchdog_s"),
    [({}, 30.0), ({"WATCHDOG_PID": ""}, 30.0), ({"WATCHDOG_PID": "1"}, None), ({"WATCHDOG_USEC": "soon"}, None),
     ({"WATCHDOG_USEC": "0"}, None), ({"NOTIFY_SOCKET": ""}, None)],
)  # fmt: skip
def test_a_watchdog_for_another_process_is_not_fed(changes: dict[str, str], watchdog_s: float | None) -> None:
    """WATCHDOG_PID says for whom it is; without a socket there is none."""
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}

    assert taken_from({**environ, **changes}).watchdog_s == watchdog_s


def test_a_kind_of_socket_that_we_do_not_speak_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A machine's vsock, say: the program runs, and the log says that systemd hears nothing."""
    assert not taken_from({"NOTIFY_SOCKET": "vsock:2:1"}).active
    assert "NOTIFY_SOCKET vsock:2:1 is neither a path nor an abstract socket" in caplog.text


def test_a_child_does_not_inherit(tmp_path: Path) -> None:
    """What the demo gives to its server and agent."""
    environ = {**os.environ, "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    code = "import os; print(sorted(set(os.environ) & {'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'}))"
    said = subprocess.run([sys.executable, "-c", code], env=left_out_of(environ), capture_output=True, text=True)

    assert said.stdout.strip() == "[]"
