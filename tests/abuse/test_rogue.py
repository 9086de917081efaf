"""Abuse cases 30 and 34, and what an agent keeps on its disk: the real agent against servers that are not its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pingmon_agent.wire.keyfile import KeyFileError, identity_file
from tests.agent.pretend import APPROVED, PASSPHRASE, PIN, AgentProcess, targets
from tests.support.stage import Stage

pytestmark = [pytest.mark.e2e, pytest.mark.root]
OTHER_PIN = "0" * 32


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as made:
        yield made


def check_silence(stage: Stage, agent: AgentProcess, why: str) -> None:
    """One log line with the reason; nothing but a hello was said, ever; the agent is alive and stays away."""
    line = agent.wait_log("server identity mismatch")
    assert why in line, line
    assert stage.server.wait("raw")["passphrase"].startswith("pmhello1:")
    assert stage.server.nothing("raw", 3.0), "it comes back in 5 to 15 minutes"
    assert agent.log.read_text().count("server identity mismatch") == 1
    assert agent.process.poll() is None
    secret = PASSPHRASE.split("-")[2]
    assert secret not in agent.log.read_text()
    assert (stage.folder / "passphrase").exists(), "it is needed yet"


def test_case_30_another_identity_behind_a_good_certificate(stage: Stage) -> None:
    """Our CA, another server: the pin does not fit."""
    agent = stage.agent(passphrase=PASSPHRASE[:-32] + OTHER_PIN)
    check_silence(stage, agent, f"its identity is {PIN}, not the one this agent was given")


@pytest.mark.parametrize("answer", [APPROVED, {"state": "pending", "retry_after_s": 60}])
def test_case_30_a_server_that_offers_only_plain_text(stage: Stage, answer: dict[str, Any]) -> None:
    """It skips the challenge and says what the agent would like to hear: not believed, and told nothing."""
    stage.server.tell("set", sealed=False, handshake_answer=answer)
    check_silence(stage, stage.agent(), "it answers without having proven who it is")


@pytest.mark.parametrize("altered", [{"proto": []}, {"proto": [0]}, {"proto": [1, 2]}, {"time": 1}, {"kex": PIN}])
def test_case_34_a_challenge_altered_on_the_way(stage: Stage, altered: dict[str, Any]) -> None:
    """Somebody strips the list of versions (the shape of CVE-2025-62349) or touches anything else: the agent stops."""
    stage.server.tell("set", altered=altered)
    why = (
        "it sends no readable challenge" if "kex" in altered else "its challenge is not signed by the identity it shows"
    )
    check_silence(stage, stage.agent(), why)


def test_an_unsigned_approval_later_is_not_believed(stage: Stage) -> None:
    """A push that the server did not sign ends the connection; no target of such a server is pinged."""
    agent = stage.agent()
    stage.server.wait("handshake")
    stage.server.tell("push", body=APPROVED | {"sig": "AAAA"}, raw=True)

    assert "its answer is not signed by its identity" in agent.wait_log("server identity mismatch")
    assert "state approved" not in agent.log.read_text()


def test_a_target_set_that_is_not_signed_changes_nothing(stage: Stage) -> None:
    """The set in use stays in use, the server is told; so with one that is signed but older."""
    stage.server.tell("set", handshake_answer=APPROVED | {"targets_rev": 5})
    agent = stage.agent()
    stage.server.wait("handshake")
    stage.server.tell("targets", body=targets("127.0.0.1", revision=4))
    old = stage.server.wait("targets_ack")["data"][0]
    stage.server.tell("targets", body=targets("127.0.0.1", revision=5))
    assert stage.server.wait("targets_ack")["data"][0]["ok"] is True
    stage.server.tell("targets", body=targets("127.0.0.1", "127.0.0.2", revision=6) | {"sig": "AAAA"})
    forged = stage.server.wait("targets_ack")["data"][0]
    report = stage.server.wait("report")["data"]

    assert (old["ok"], old["code"]) == (False, "E_TARGET"), "the approval promised a newer one"
    assert (forged["ok"], forged["code"]) == (False, "E_SIGNATURE")
    assert {len(r["rtt"]) for r in report["rounds"]} == {1}
    assert agent.process.poll() is None


def test_the_passphrase_goes_and_the_pin_stays(stage: Stage) -> None:
    """Pending it is kept; approved it is removed, and the next start needs none: it logs in with its key."""
    agent = stage.agent()
    first = stage.server.wait("raw"), stage.server.wait("raw")
    agent.wait_log("state pending")
    assert (stage.folder / "passphrase").exists()
    stage.server.tell("push", body=APPROVED)
    agent.wait_log("the passphrase is not needed any more and was removed")
    assert not (stage.folder / "passphrase").exists()
    agent.stop()
    key = (stage.folder / "state" / "identity.key").read_bytes()
    stage.server.tell("set", handshake_answer=APPROVED)
    again = stage.agent(passphrase="")
    again.wait_log("state approved")

    assert first[1]["passphrase"].startswith("pmseal1:")
    stage.server.wait("raw")
    assert stage.server.wait("raw")["passphrase"].startswith("pmkey1:")
    assert (stage.folder / "state" / "identity.key").read_bytes() == key
    assert (stage.folder / "state" / "server.pin").read_text().strip() == PIN
    for name in ("identity.key", "server.pin"):
        assert (stage.folder / "state" / name).stat().st_mode & 0o777 == 0o600
    secret = PASSPHRASE.split("-")[2]
    files = [path for path in stage.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_key_that_the_server_forgot_brings_the_passphrase_again(stage: Stage) -> None:
    """E_UNKNOWN_KEY on the same connection: the first message once more, then the seal."""
    (stage.folder / "state").mkdir()
    (stage.folder / "state" / "server.pin").write_text(PIN)
    unknown = {"state": "error", "code": "E_UNKNOWN_KEY", "message": "unknown", "retry_after_s": 30}
    stage.server.tell("set", handshake_answer=unknown)
    stage.agent()
    said = [stage.server.wait("raw")["passphrase"].split(":")[0] for _ in range(4)]

    assert said == ["pmhello1", "pmkey1", "pmhello1", "pmseal1"]
    assert stage.server.nothing("raw", 1.0), "no second seal at once"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_identity_is_said_and_never_made_anew(tmp_path: Path, damage: str) -> None:
    """Every bit counts: a sentence with the way out, the file as it was."""
    file = tmp_path / "identity.key"
    made = identity_file(file, "x")
    assert identity_file(file, "x").fingerprint == made.fingerprint
    good = file.read_bytes()
    at = len(good) // 2
    broken = {
        "flip": good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
        "cut": good[:-20],
        "empty": b"",
        "foreign": b"-----BEGIN PRIVATE KEY-----\n",
    }[damage]
    file.write_bytes(broken)

    with pytest.raises(KeyFileError, match=r"is damaged: restore it from a backup, or remove it and have it approved$"):
        identity_file(file, "have it approved")
    assert file.read_bytes() == broken


def test_two_first_starts_make_one_identity(tmp_path: Path) -> None:
    """Whoever is slower takes what the other has made; nothing else is left in the directory."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: identity_file(tmp_path / "identity.key", "x").fingerprint, range(8)))

    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]
