"""server.toml: what is refused, and with which sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pingmon.config import Config, ConfigError, build, load

CASES: list[tuple[dict[str, Any], dict[str, str], str]] = [
    (
        {"servr": {}},
        {},
        "[servr] is not a section of server.toml; there are server, tls, probing, targets, retention, metrics, limits, "
        "log",
    ),
    (
        {"server": {"prot": 1}},
        {},
        "server.prot is not a setting; [server] has listen, port, public_url, data_dir",
    ),
    ({"server": {"port": "8443"}}, {}, "server.port = '8443' is wrong: it must be a whole number"),
    ({"server": {"port": True}}, {}, "server.port = True is wrong: it must be a whole number"),
    ({"server": {"port": 70000}}, {}, "server.port = 70000 is wrong: it must lie between 0 and 65535"),
    ({"server": []}, {}, "server must be a section: write [server] on a line of its own"),
    ({"probing": {"mesh": "yes"}}, {}, "probing.mesh = 'yes' is wrong: it must be true or false"),
    ({"probing": {"interval_s": 0.5}}, {}, "probing.interval_s = 0.5 is wrong: it must lie between 1 and 3600"),
    (
        {"probing": {"warn_ms": 300}},
        {},
        "probing.warn_ms = 300.0 must be smaller than probing.bad_ms = 200.0",
    ),
    ({"tls": {"minimum_version": "1.0"}}, {}, "tls.minimum_version = '1.0' is wrong: it must be one of 1.2, 1.3"),
    ({"log": {"level": "loud"}}, {}, "log.level = 'loud' is wrong: it must be one of debug, info, warning, error"),
    (
        {"server": {"public_url": "https://[::1]:many"}},
        {},
        "server.public_url = 'https://[::1]:many' is wrong: it must look like https://monitor.example.net:8443",
    ),
    (
        {"server": {"public_url": "http://x"}},
        {},
        "server.public_url = 'http://x' is wrong: it must look like https://monitor.example.net:8443",
    ),
    (
        {"metrics": {"allow": "192.0.2.0/33"}},
        {},
        "metrics.allow = '192.0.2.0/33' is wrong: '192.0.2.0/33' does not appear to be an IPv4 or IPv6 network; "
        "list networks such as 192.0.2.0/24",
    ),
    ({}, {"PINGMON_SERVER_PORT": "many"}, "PINGMON_SERVER_PORT='many' is wrong: it must be a whole number"),
    ({}, {"PINGMON_PROBING_MESH": "perhaps"}, "PINGMON_PROBING_MESH='perhaps' is wrong: it must be true or false"),
]


@pytest.mark.parametrize(("tables", "environ", "sentence"), CASES)
def test_bad_settings_are_refused(tables: dict[str, Any], environ: dict[str, str], sentence: str) -> None:
    """Each refusal names the key, the value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        build(tables, environ)

    assert str(caught.value) == sentence


def test_no_settings_are_the_defaults() -> None:
    """An empty file is a valid one."""
    assert build({}, {}) == Config()


def test_environment_wins_over_the_file() -> None:
    """Every key can be set by a variable."""
    config = build({"server": {"port": 1}}, {"PINGMON_SERVER_PORT": "2", "PINGMON_PROBING_MESH": "false"})

    assert (config.server.port, config.probing.mesh) == (2, False)


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """A wrong path is answered with the way out."""
    with pytest.raises(ConfigError, match=r"does not exist; write it .* or name another file with --config"):
        load(tmp_path / "none.toml", {})


def test_broken_toml_is_named(tmp_path: Path) -> None:
    """The parser's own words tell the line."""
    path = tmp_path / "server.toml"
    path.write_text("[server\n")

    with pytest.raises(ConfigError, match=r"is not valid TOML: .*line 1"):
        load(path, {})
