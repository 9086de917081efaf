"""A passphrase that systemd gives to the unit: it stays where it is, and does no harm after the approval."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pingmon_agent import config as settings
from pingmon_agent.cli import main
from pingmon_agent.config import ConfigError
from pingmon_agent.credential import by_systemd, load_here, open_to_others
from pingmon_agent.keep import Keep
from pingmon_agent.wire.seal import Identity
from tests.support.processes import running_agent, running_server, wait_for

from .pretend import PASSPHRASE, PIN

OF_UNIT = "/run/credentials/pingmon-agent.service/passphrase"


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As systemd lays it out, elsewhere."""
    place = tmp_path / "credentials"
    place.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(place))
    file = place / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o440)
    return file


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """agent.toml of an agent that may have its passphrase anywhere; `@` stands for where."""
    (tmp_path / "ca.pem").write_text("not looked into here")
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[server]\nurl = "wss://192.0.2.1:8443"\nca_file = "{tmp_path / "ca.pem"}"\npassphrase_file = "@"\n'
        f'[agent]\nstate_dir = "{tmp_path / "state"}"\n[metrics]\nlisten = ""\n'
    )
    return file


def with_passphrase(written: Path, file: Path | str) -> Path:
    written.write_text(written.read_text().replace("@", str(file)))
    return written


def test_what_is_systemds_is_known_by_its_place(credential: Path) -> None:
    """The unit's own directory, and that of any other unit for who looks from outside."""
    assert by_systemd(credential)
    assert by_systemd(Path(OF_UNIT))
    assert not by_systemd(credential.parent.parent / "passphrase")


def test_a_credential_stays_and_that_is_said_once(credential: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At level info, however often the server says that the agent is approved; this process forgets it all the same."""
    caplog.set_level(logging.INFO)
    keep = Keep(Identity(bytes(range(32))), PIN, PASSPHRASE, passphrase_file=credential)
    keep.approved()
    keep.approved()

    assert credential.exists()
    assert keep.passphrase == ""
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "take LoadCredential= out of the unit" in caplog.text


def test_the_rights_of_a_credential_are_systemds_affair(credential: Path, written: Path) -> None:
    """Its mode shows the mask of an access list; of any other file it is a hole."""
    assert open_to_others(settings.load(with_passphrase(written, credential), {})) is None
    other = credential.parent.parent / "passphrase"
    credential.rename(other)
    written.write_text(written.read_text().replace(str(credential), str(other)))
    assert "run `chmod 600" in str(open_to_others(settings.load(written, {})))


def test_from_outside_of_the_unit_the_rest_can_be_checked(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A credential that is not there is no mistake for `config check` and `status`; to run, the agent needs it."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    missing = with_passphrase(written, OF_UNIT)

    assert load_here(missing).passphrase == ""
    with pytest.raises(ConfigError, match=r"cannot read server\.passphrase_file"):
        settings.load(missing, {})
    assert main(["status", "--config", str(missing)]) == 1
    assert "the agent serves no status" in capsys.readouterr().err
    main(["doctor", "--config", str(missing)])
    assert f"passphrase {OF_UNIT} is given by systemd to the running agent" in capsys.readouterr().out
    missing.write_text(missing.read_text().replace(OF_UNIT, "/nowhere/passphrase"))
    with pytest.raises(ConfigError, match=r"cannot read server\.passphrase_file"):
        load_here(missing)


@pytest.mark.parametrize("left", ["", "\n"])
def test_an_agent_that_is_known_needs_nothing_in_it(written: Path, credential: Path, left: str) -> None:
    """A vault whose passphrase was taken out leaves an empty credential; a new agent is told to get one."""
    credential.chmod(0o600)
    credential.write_text(left)
    config = with_passphrase(written, credential)
    with pytest.raises(ConfigError, match="must hold one line with the passphrase"):
        settings.load(config, {})
    (written.parent / "state").mkdir()
    (written.parent / "state" / "server.pin").write_text(PIN)

    assert settings.load(config, {}).passphrase == ""


@pytest.mark.e2e
def test_a_passphrase_that_is_left_over_does_no_harm(tmp_path: Path) -> None:
    """Approved by it, started again with it, and after it was revoked too: by then the agent is its key."""
    with running_server(tmp_path / "server") as server:
        home = tmp_path / "agent"
        environment = {"CREDENTIALS_DIRECTORY": str(home)}
        secret = server.passphrase("probe-1")
        with running_agent(server, home, "probe-1", passphrase=secret, environment=environment) as agent:
            agent.approve()
            log = home / "agent.log"
            wait_for(lambda: "it is systemd's to give" in log.read_text(), "the approval")
            for row in server.cli_json("passphrases", "list"):
                server.admin("passphrases", "revoke", row["id"])
            agent.stop()
            began = len(log.read_text())
            agent.start()
            wait_for(lambda: "state approved" in log.read_text()[began:], "the second approval")

            assert (home / "passphrase").read_text().strip() == secret
            assert "warning" not in log.read_text()
            assert "error" not in log.read_text()
