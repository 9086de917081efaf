"""Log lines for somebody who never logs in."""

from __future__ import annotations

import logging
import threading

import pytest

from pingmon_agent import log


def test_facts_follow_the_message_and_stay_one_line() -> None:
    """key=value, quoted where a blank would tear them apart, and never a second line."""
    line = log.say("state changed", state="hold", reason='the "new" address\nof this host', after_s=1.50, empty="")

    assert line == 'state changed state=hold reason="the \'new\' address of this host" after_s=1.5 empty=""'


def test_a_cause_is_said_once_then_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    """An outage of an hour is a handful of lines; a new cause is said at once; after it is over all is news again."""
    clock = [0.0]
    cause = log.Cause(logging.getLogger("test"), every_s=600, now=lambda: clock[0])
    for _ in range(120):
        cause.report("nothing listens")
        clock[0] += 30
    cause.report("no route")
    cause.clear()
    cause.report("no route")

    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == ["nothing listens", "nothing listens repeated=20"]
    assert said[-2:] == ["no route", "no route"]
    assert len(said) == 1 + 5 + 2


def test_lines_begin_with_time_and_level(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """UTC time outside of the journal, the level in lower case; a thread that dies is in the log too."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    log.setup("info")
    logging.getLogger("pingmon_agent.x").info("hello")
    logging.getLogger("socketio").warning("chatter")
    thread = threading.Thread(target=int, args=("seven",))
    thread.start()
    thread.join()
    shown = capsys.readouterr().err

    first, second, *_ = shown.splitlines()
    assert first.endswith("Z info hello")
    assert "Z error a thread failed reason=" in second
    assert "chatter" not in shown
