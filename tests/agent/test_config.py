"""Each refusal of a configuration, with the exact sentence it must give."""

from __future__ import annotations

from pathlib import Path

import pytest

from pingmon_agent.config import ConfigError, load

PASSPHRASE = f"pm1-gmefpcqh-90g400kg9nytz74aah5pedtrr0-{'k' * 32}"
GOOD = """
[server]
url = "wss://monitor.example.net:8443"
ca_file = "{folder}/ca.pem"
passphrase_file = "{folder}/passphrase"
[agent]
hostname = "Probe-1"
state_dir = "{folder}/state"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that a configuration names."""
    (tmp_path / "ca.pem").write_text("certificate")
    (tmp_path / "passphrase").write_text(f"  {PASSPHRASE}\n")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    """`text` as the configuration file."""
    path = folder / "agent.toml"
    path.write_text(text.replace("{folder}", str(folder)))
    return path


def test_a_good_file_gives_typed_settings_and_defaults(folder: Path) -> None:
    """Names are folded, the passphrase is read and stripped, and what is not set has its default."""
    config = load(written(folder, GOOD), env={})

    assert (config.server.host, config.server.port) == ("monitor.example.net", 8443)
    assert config.agent.hostname == "probe-1"
    assert config.passphrase == PASSPHRASE
    assert (config.probe.timeout_ms, config.probe.window_ms) == (2000, 1000)
    assert config.metrics.listen == "127.0.0.1:9765"
    assert (config.agent.start_spread_s, config.agent.exit_when_unapproved) == (0.0, False)


@pytest.mark.parametrize(
    ("lines", "directory"),
    [
        ('buffer = "memory"', None),
        ('buffer = "tmpfs"', "/run/pingmon-agent"),
        ('buffer = "disk"', "/var/lib/pingmon-agent"),
        ('buffer_dir = "/srv/ring"', "/srv/ring"),
        ('buffer = "disk"\nbuffer_dir = "/srv/ring"', "/srv/ring"),
    ],
)
def test_where_rounds_are_kept(folder: Path, lines: str, directory: str | None) -> None:
    """Each kind of buffer has its directory, and another one can be named."""
    agent = load(written(folder, GOOD + lines + "\n"), env={}).agent

    assert agent.directory == (Path(directory) if directory else None)


def test_files_are_taken_where_somebody_made_a_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a setting: the runtime directory if it exists, as systemd makes it, else memory."""
    agent = load(written(folder, GOOD), env={}).agent
    monkeypatch.setattr("pingmon_agent.config.RUNTIME_DIR", tmp_path / "pingmon-agent")
    before = agent.directory
    (tmp_path / "pingmon-agent").mkdir()

    assert (before, agent.directory) == (None, tmp_path / "pingmon-agent")


def test_the_passphrase_never_shows(folder: Path) -> None:
    """A configuration that is logged by accident gives nothing away."""
    assert "sesame" not in repr(load(written(folder, GOOD), env={}))


def test_the_environment_overrides_the_file(folder: Path) -> None:
    """PINGMON_AGENT_<SECTION>_<KEY>, with the type of the key."""
    env = {
        "PINGMON_AGENT_PROBE_TIMEOUT_MS": "900",
        "PINGMON_AGENT_AGENT_EXIT_WHEN_UNAPPROVED": "true",
        "PINGMON_AGENT_AGENT_START_SPREAD_S": "15",
        "PINGMON_AGENT_METRICS_LISTEN": "",
        "PINGMON_AGENTS": "not ours",
        "OTHER": "x",
    }

    config = load(written(folder, GOOD), env=env)

    assert config.probe.timeout_ms == 900
    assert config.agent.exit_when_unapproved is True
    assert config.agent.start_spread_s == 15.0
    assert config.metrics.listen == ""


ALLOWED_AGENT = "hostname, ip_address, state_dir, exit_when_unapproved, start_spread_s, buffer, buffer_dir, buffer_mib"
REFUSED = [
    ("[sever]\n", "unknown section [sever]; allowed are server, agent, probe, metrics, log"),
    ("server = 1\n", "server must be a section: write [server] on a line of its own and its keys below"),
    (GOOD + 'host = "x"\n', f"unknown key agent.host; allowed in [agent] are {ALLOWED_AGENT}"),
    (GOOD.replace('"Probe-1"', "7"), "agent.hostname is 7; it must be text in quotes"),
    (GOOD + "exit_when_unapproved = 1\n", "agent.exit_when_unapproved is 1; it must be true or false"),
    (GOOD + "start_spread_s = true\n", "agent.start_spread_s is True; it must be a number"),
    (GOOD + "start_spread_s = 301\n", "agent.start_spread_s is 301; it must lie between 0 and 300 seconds"),
    (GOOD + 'buffer = "ramdisk"\n', "agent.buffer is 'ramdisk'; allowed are auto, memory, tmpfs, disk"),
    (GOOD + "buffer_mib = 0\n", "agent.buffer_mib is 0; it must lie between 1 and 1024"),
    (GOOD + 'buffer_dir = "ring"\n', "agent.buffer_dir is 'ring'; write an absolute path"),
    (
        GOOD + 'buffer = "memory"\nbuffer_dir = "/ring"\n',
        'agent.buffer_dir is set, but agent.buffer is "memory"; set one of the two only',
    ),
    (GOOD + "[probe]\ntimeout_ms = 0.5\n", "probe.timeout_ms is 0.5; it must be a whole number"),
    (GOOD + "[probe]\ntimeout_ms = 5\n", "probe.timeout_ms is 5; it must lie between 10 and 60000"),
    (GOOD + "[probe]\nwindow_ms = -1\n", "probe.window_ms is -1; it must lie between 0 and 60000"),
    (GOOD + '[log]\nlevel = "loud"\n', "log.level is 'loud'; allowed are debug, info, warning, error"),
    (
        GOOD + '[metrics]\nlisten = "9765"\n',
        'metrics.listen is \'9765\'; write "host:port", such as "127.0.0.1:9765", or "" to switch it off',
    ),
    (
        GOOD.replace("wss://", "ws://"),
        "server.url is 'ws://monitor.example.net:8443'; only wss:// is allowed, as the passphrase and all results "
        "cross this line",
    ),
    (
        GOOD.replace("wss://", "https://"),
        "server.url is 'https://monitor.example.net:8443'; only wss:// is allowed, as the passphrase and all results "
        "cross this line",
    ),
    (
        GOOD.replace(":8443", ":8443/x"),
        "server.url is 'wss://monitor.example.net:8443/x'; write it as wss://host:port and nothing more",
    ),
    (
        GOOD.replace(":8443", ":port"),
        "server.url is 'wss://monitor.example.net:port'; write it as wss://host:port and nothing more",
    ),
    (GOOD.replace('ca_file = "{folder}/ca.pem"', ""), "server.ca_file is missing; set it in section [server]"),
    (
        GOOD.replace("Probe-1", "probe 1"),
        "agent.hostname is 'probe 1': hostname must be dot-separated labels of a-z, 0-9, '-' and '_'; set `hostname` "
        "in the agent's configuration",
    ),
    (
        GOOD + 'ip_address = "192.0.2.300"\n',
        "agent.ip_address is '192.0.2.300': ip_address must be one IPv4 or IPv6 address, such as 192.0.2.17",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_a_bad_file_is_refused_with_one_sentence(folder: Path, text: str, sentence: str) -> None:
    """The sentence names the key, the value and what is allowed."""
    with pytest.raises(ConfigError) as refused:
        load(written(folder, text), env={})

    assert str(refused.value) == sentence


def test_a_bad_variable_is_named(folder: Path) -> None:
    """The refusal names the variable, as that is what has to be changed."""
    with pytest.raises(ConfigError) as refused:
        load(written(folder, GOOD), env={"PINGMON_AGENT_PROBE_TIMEOUT_MS": "2s"})

    assert str(refused.value) == "PINGMON_AGENT_PROBE_TIMEOUT_MS is '2s'; it must be a whole number"


def test_an_unknown_variable_is_refused_like_an_unknown_key(folder: Path) -> None:
    """A misspelt override must not be silently without effect."""
    with pytest.raises(ConfigError, match=r"^unknown key probe\.timeout; allowed in \[probe\]"):
        load(written(folder, GOOD), env={"PINGMON_AGENT_PROBE_TIMEOUT": "2"})


@pytest.mark.parametrize("name", ["ca.pem", "passphrase"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str) -> None:
    """The sentence names key, path and reason."""
    (folder / name).unlink()
    key = {"ca.pem": "server.ca_file", "passphrase": "server.passphrase_file"}[name]
    with pytest.raises(ConfigError) as refused:
        load(written(folder, GOOD), env={})

    reason = "No such file or directory; check the path and who may read it"
    assert str(refused.value) == f"cannot read {key} {folder / name}: {reason}"


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 1401])
def test_a_passphrase_file_must_hold_one_line(folder: Path, text: str) -> None:
    """Empty, too long or several lines: refused before anything is sent."""
    (folder / "passphrase").write_text(text)
    with pytest.raises(
        ConfigError, match=r"must hold one line with the passphrase \(pm1-...\); create one on the server$"
    ):
        load(written(folder, GOOD), env={})


def test_a_passphrase_for_legacy_agents_is_refused(folder: Path) -> None:
    """This agent never sends one in the clear."""
    (folder / "passphrase").write_text("pml-gmefpcqh-90g400kg9nytz74aah5pedtrr0\n")
    with pytest.raises(ConfigError, match=r"is for legacy agents; make one for this agent with `pingmon passphrases"):
        load(written(folder, GOOD), env={})


def test_a_known_server_needs_no_passphrase(folder: Path) -> None:
    """Approved once or beforehand: the pin is kept or configured, and the passphrase file may be gone."""
    (folder / "passphrase").unlink()
    pinned = load(written(folder, GOOD.replace("[agent]", f'identity = "{"m" * 32}"\n[agent]')), env={})
    (folder / "state").mkdir()
    (folder / "state" / "server.pin").write_text("m" * 32)
    kept = load(written(folder, GOOD), env={})

    assert (pinned.passphrase, pinned.pin) == ("", "m" * 32)
    assert (kept.passphrase, kept.pin) == ("", "")


def test_a_passphrase_for_another_server_is_refused(folder: Path) -> None:
    """Which of the two is right, only somebody who has both servers before him can say."""
    with pytest.raises(
        ConfigError, match=r"is for another server than server.identity 'm+'; copy both from one server"
    ):
        load(written(folder, GOOD.replace("[agent]", f'identity = "{"m" * 32}"\n[agent]')), env={})


def test_a_missing_or_broken_file_is_refused(folder: Path) -> None:
    """No file, and a file that is no TOML."""
    with pytest.raises(ConfigError) as missing:
        load(folder / "none.toml", env={})
    with pytest.raises(ConfigError, match=r"agent\.toml is not valid TOML: "):
        load(written(folder, "[server\n"), env={})

    path = folder / "none.toml"
    expected = f"cannot read the configuration {path}: No such file or directory; give another with --config"
    assert str(missing.value) == expected
