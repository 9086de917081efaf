"""The agent as a process with its rounds on file: killed and started again, refused beside another, looked at."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pingmon_agent import cli, doctor
from pingmon_agent.wire import codec
from tests.support.stage import Stage

from .pretend import APPROVED, targets

pytestmark = [pytest.mark.e2e, pytest.mark.root]


class Keeping(Stage):
    """Its agents have one directory for their rounds."""

    def __init__(self, folder: Path) -> None:
        self.ring = folder / "ring"
        super().__init__(folder, agent_buffer_dir=str(self.ring))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Keeping]:
    with Keeping(tmp_path) as made:
        yield made


def test_a_killed_agent_goes_on_where_it_was(stage: Keeping) -> None:
    """Rounds that were never acknowledged come from the next process, under the same epoch and numbers."""
    stage.server.tell("set", handshake_answer=APPROVED, answer_reports=False)
    agent = stage.agent()
    stage.server.wait("handshake")
    stage.server.tell("targets", body=targets("127.0.0.1"))
    sent = codec.decode_report(stage.server.wait("report")["data"])
    agent.stop(signal.SIGKILL)
    stage.server.tell("set", answer_reports=True)
    stage.agent()
    hello = codec.decode_handshake(stage.server.wait("handshake")["data"])

    again = codec.decode_report(stage.server.wait("report")["data"])

    assert again.epoch == hello.epoch == sent.epoch
    assert again.rounds[: len(sent.rounds)] == sent.rounds
    assert hello.next_seq > sent.rounds[-1].seq


def test_after_damage_the_old_epoch_is_delivered_and_then_a_new_one(stage: Keeping) -> None:
    """On one connection: the handshake under the old epoch, its rounds, a handshake under the new one, its rounds."""
    stage.server.tell("set", handshake_answer=APPROVED, answer_reports=False)
    agent = stage.agent()
    stage.server.wait("handshake")
    stage.server.tell("targets", body=targets("127.0.0.1"))
    sent = codec.decode_report(stage.server.wait("report")["data"])
    agent.stop(signal.SIGKILL)
    newest = max(stage.ring.glob("*.ring"))
    newest.write_bytes(newest.read_bytes() + b"torn")
    stage.server.tell("set", answer_reports=True)
    stage.agent()
    old = codec.decode_report(stage.server.wait("report")["data"])
    fresh = stage.server.wait("handshake", where=lambda seen: epoch_of(seen) != sent.epoch)
    stage.server.tell("targets", body=targets("127.0.0.1"))

    new = codec.decode_report(
        stage.server.wait("report", where=lambda seen: seen["data"]["epoch"] != sent.epoch)["data"]
    )

    assert (old.epoch, old.rounds[0]) == (sent.epoch, sent.rounds[0])
    assert (new.epoch, new.rounds[0].seq) == (epoch_of(fresh), 1)


def epoch_of(seen: dict[str, object]) -> str | None:
    """The epoch that a handshake names."""
    return codec.decode_handshake(seen["data"]).epoch


def test_a_second_agent_is_refused_with_a_sentence(stage: Keeping, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the first one stays."""
    first = stage.agent()
    first.wait_log("agent started")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PINGMON_AGENT_AGENT_BUFFER_DIR", str(stage.ring))
        code = cli.main(["run", "--config", str(first.config)])

    said = capfd.readouterr().err
    assert code == 1
    assert f"another agent (process {first.process.pid}) keeps its rounds in {stage.ring}; stop it" in said
    assert first.process.poll() is None


def test_status_and_doctor_say_where_rounds_are(
    stage: Keeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory and how full it is; what cannot be written comes with its mend."""
    agent = stage.agent(metrics_listen="127.0.0.1:0")
    port = agent.wait_log("metrics served").rpartition("=")[2]
    monkeypatch.setenv("PINGMON_AGENT_AGENT_BUFFER_DIR", str(stage.ring))
    monkeypatch.setenv("PINGMON_AGENT_METRICS_LISTEN", f"127.0.0.1:{port}")
    cli.main(["status", "--config", str(agent.config)])
    said: list[str] = []
    doctor.run(agent.config, said.append)
    monkeypatch.setenv("PINGMON_AGENT_AGENT_BUFFER_DIR", "/nonexistent/ring")
    doctor.run(agent.config, said.append)

    assert f"buffer               {stage.ring}, 0.0 of 32 MiB\n" in capsys.readouterr().out
    assert f"ok    rounds are kept in {stage.ring}, 0.0 of 32 MiB" in said
    assert any(
        line.startswith("MEND  rounds are kept in /nonexistent/ring, which cannot be written: create it")
        for line in said
    )


def test_an_agent_whose_rounds_cannot_be_written_says_so_and_works(stage: Keeping) -> None:
    """The directory cannot be made: it starts, reports, and its metrics say that files are missing."""
    stage.ring.write_text("a file in the way")
    stage.server.tell("set", handshake_answer=APPROVED)
    agent = stage.agent(metrics_listen="127.0.0.1:0")
    agent.wait_log("rounds cannot be written and are kept in memory only")
    stage.server.wait("handshake")
    stage.server.tell("targets", body=targets("127.0.0.1"))
    stage.server.wait("report")
    port = agent.wait_log("metrics served").rpartition("=")[2]

    page = metrics_page(int(port))

    assert "pingmon_agent_spool_degraded 1.0\n" in page
    assert "pingmon_agent_spool_write_failures_total 1.0\n" in page
    assert agent.process.poll() is None


def metrics_page(port: int) -> str:
    """What /metrics says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
