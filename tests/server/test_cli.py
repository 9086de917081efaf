"""The command line, in a process of its own: what it prints, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from pingmon.services.bundle import Services
from pingmon.store.check import DamageError, refuse_damage
from pingmon.store.rounds import StoredRound
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.seal import Identity

from .conftest import Approve, hello, passphrase

pytestmark = pytest.mark.e2e


@pytest.fixture
def config_file(services: Services, tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(f'[server]\ndata_dir = "{services.config.data_dir}"\n')
    return path


def pingmon(config: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pingmon", *words, "--config", str(config)], capture_output=True, text=True, input=stdin
    )


def test_agents_are_approved_by_hostname(config_file: Path, services: Services) -> None:
    """List, approve, list again: what a first-time user does."""
    services.enrolment.greet(hello(passphrase(services)), "192.0.2.1")

    before = json.loads(pingmon(config_file, "agents", "list", "--output", "json").stdout)
    done = pingmon(config_file, "agents", "approve", "probe-1")
    after = json.loads(pingmon(config_file, "agents", "list", "--output", "json", "--state", "approved").stdout)

    assert [a["state"] for a in before] == ["pending"]
    assert (done.returncode, done.stdout) == (0, f"probe-1 {before[0]['id']}: approved\n")
    assert [a["agent_id"] for a in after] == [before[0]["id"]]
    services.registry.refresh()
    assert services.registry.agent("probe-1").decided_by.startswith("cli:")  # type: ignore[union-attr]


def test_targets_go_out_and_come_in(config_file: Path) -> None:
    """`export` prints what `import` reads; comments and blank lines are allowed."""
    text = "# ours\ngw,192.0.2.254\n\n2001:db8::1\n"

    put = pingmon(config_file, "targets", "import", "-", stdin=text)
    out = pingmon(config_file, "targets", "export")

    assert (put.returncode, put.stdout) == (0, "2 targets are in force\n")
    assert out.stdout == "gw,192.0.2.254\n2001:db8::1,2001:db8::1\n"
    assert pingmon(config_file, "targets", "import", "-", stdin=out.stdout).returncode == 0
    assert pingmon(config_file, "targets", "export").stdout == out.stdout


def test_history_prints_what_was_measured(config_file: Path, services: Services, approve: Approve) -> None:
    """Steps by default, every sample if asked, as a table or for programs."""
    services.registry.put_targets([("gw", "192.0.2.254")], "test")
    agent, now = approve(), time.time_ns() // 1_000_000
    stored = StoredRound(
        agent_no=agent.no, epoch="e", seq=1, started_ms=now - 60_000, revision=1, flags=0, received_ms=now,
        samples=array("i", [12_345]),
    )  # fmt: skip
    ids = services.registry.snapshot.sets[agent.no]
    services.rounds.write([replace(stored, revision=ids.revision)], {(agent.no, "e"): 1}, now)

    raw = pingmon(config_file, "history", "probe-1", "gw", "--from=-5m", "--step", "raw")
    steps = json.loads(pingmon(config_file, "history", "probe-1", "gw", "--output", "json").stdout)
    wrong = pingmon(config_file, "history", "probe-1", "gw", "--from", "yesterday")

    assert re.fullmatch(r"TIME +RTT MS  STATUS\n20\d\d-\d\d-\d\dT[0-9:.]+Z  12.345  ok\n", raw.stdout)
    assert [p["p50_ms"] for p in steps if p["sent"]] == [12.345]
    assert (wrong.returncode, wrong.stderr[:42]) == (1, "pingmon: `from` is no time: 'yesterday'; w")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ("agents", "approve", "nobody"),
            1,
            "pingmon: there is no agent 'nobody'; `pingmon agents list` shows ids and hostnames\n",
        ),
        (
            ("targets", "add", "x", "300.1.1.1"),
            1,
            "pingmon: '300.1.1.1' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1\n",
        ),
        (
            ("targets", "import", "/nonexistent"),
            1,
            "pingmon: /nonexistent cannot be read (No such file or directory); name a file with lines `name,address`\n",
        ),
        (
            ("passphrases", "create", "--ttl", "soon"),
            2,
            "pingmon: --ttl 'soon' is wrong; write a number and m, h or d, such as 24h\n",
        ),
        (
            ("passphrases", "revoke", "00000000"),
            1,
            "pingmon: there is no passphrase '00000000'; `pingmon passphrases list` shows their ids\n",
        ),
    ],
)
def test_refusals_are_one_sentence(config_file: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    """Exit code and text are for scripts and people alike; never a traceback."""
    done = pingmon(config_file, *words)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", sentence)


@pytest.mark.parametrize(
    ("listen", "host"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("192.0.2.5", "192.0.2.5")]
)
def test_the_first_admin_gets_a_link_that_can_be_opened(config_file: Path, listen: str, host: str) -> None:
    """The link leads to an address the server listens on, and the hint says how to use it from elsewhere."""
    config_file.write_text(config_file.read_text() + f'listen = "{listen}"\n')

    made = pingmon(config_file, "users", "create", "--admin")

    assert made.stdout.startswith(f"https://{host}:8443/welcome/")
    assert f"ssh -L 8443:{host}:8443 HOST" in made.stderr


def test_a_passphrase_is_printed_once(config_file: Path) -> None:
    """Standard output holds the secret alone, so it can be piped into a file; lists never show it."""
    made = pingmon(config_file, "passphrases", "create", "--legacy", "--label", "site A", "--uses", "3")
    listed = json.loads(pingmon(config_file, "passphrases", "list", "--output", "json").stdout)

    secret = made.stdout.strip()
    assert secret.startswith("pml-")
    assert [(p["label"], p["max_uses"], p["state"]) for p in listed] == [("site A", 3, "usable")]
    assert secret.split("-")[2] not in json.dumps(listed)


def test_a_passphrase_brings_the_pin_and_has_scopes(config_file: Path) -> None:
    """Without --legacy it is for the sealed exchange; networks are listed, a wrong one is refused with a sentence."""
    made = pingmon(config_file, "passphrases", "create", "--cidr", "192.0.2.0/24", "--cidr", "2001:db8::/64")
    (listed,) = json.loads(pingmon(config_file, "passphrases", "list", "--output", "json").stdout)
    refused = pingmon(config_file, "passphrases", "create", "--cidr", "192.0.2.1/24")

    assert (made.stdout[:4], len(made.stdout.strip()), listed["legacy_until"]) == ("pm1-", 72, None)
    assert listed["networks"] == ["192.0.2.0/24", "2001:db8::/64"]
    assert (refused.returncode, "192.0.2.1/24 has host bits set" in refused.stderr) == (1, True)


def test_an_agent_is_approved_before_it_comes(config_file: Path) -> None:
    """The same twice changes nothing; another key for the hostname needs --replace and keeps the agent's id."""
    words = ("agents", "preapprove", "--hostname", "probe-1", "--ip", "192.0.2.1", "--output", "json", "--public-key")
    keys = [b64u(Identity(bytes([n]) * 32).public) for n in (1, 2)]
    first, again = (json.loads(pingmon(config_file, *words, keys[0]).stdout) for _ in range(2))
    refused = pingmon(config_file, *words, keys[1])
    replaced = json.loads(pingmon(config_file, *words, keys[1], "--replace").stdout)

    assert (first["state"], first["allowed"], len(first["server_identity"])) == ("approved", ["192.0.2.1"], 32)
    assert again == first
    assert (refused.returncode, refused.stderr.rstrip()[-9:]) == (1, "--replace")
    assert (replaced["id"], replaced["key_fpr"] != first["key_fpr"]) == (first["id"], True)


def test_an_agent_gets_addresses(config_file: Path) -> None:
    """Networks instead of those before; whether the observed address counts."""
    key = b64u(Identity(bytes([1]) * 32).public)
    pingmon(config_file, "agents", "preapprove", "--hostname", "probe-1", "--ip", "192.0.2.1", "--public-key", key)

    said = pingmon(config_file, "agents", "allow", "probe-1", "192.0.2.0/24", "--observed", "ignore").stdout

    assert said.endswith(": 192.0.2.0/24; observed address ignored\n")


def test_no_command_makes_a_database_by_the_way(tmp_path: Path) -> None:
    """A list asked for as root must not leave files that keep the server's own user out."""
    config = tmp_path / "server.toml"
    config.write_text(f'[server]\ndata_dir = "{tmp_path}/data"\n')

    done = pingmon(config, "agents", "list")

    assert (done.returncode, done.stderr) == (
        1,
        f"pingmon: there is no database in {tmp_path}/data; start the server once, "
        "or run `pingmon db upgrade` as its user\n",
    )
    assert not (tmp_path / "data").exists()
    assert pingmon(config, "db", "upgrade").returncode == 0
    assert pingmon(config, "agents", "list").returncode == 0


def test_configuration_errors_have_their_own_code(tmp_path: Path) -> None:
    """78, as sysexits.h has it, so that a unit file need not restart for ever."""
    bad = tmp_path / "bad.toml"
    bad.write_text("[server]\nprot = 1\n")

    done = pingmon(bad, "serve")

    assert done.returncode == 78
    assert done.stderr == ("pingmon: server.prot is not a setting; [server] has listen, port, public_url, data_dir\n")


def test_a_terminal_never_obeys_a_hostname(config_file: Path, services: Services) -> None:
    """Control characters that got into the database are printed as question marks."""
    services.enrolment.greet(hello(passphrase(services)), "192.0.2.1")
    with services.directory.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE agents SET hostname = 'a\x1b[31mb', version = '1\n2'")

    out = pingmon(config_file, "agents", "list").stdout

    assert "\x1b" not in out
    assert "a?[31mb" in out
    assert len(out.splitlines()) == 2


def test_a_list_that_is_no_text_is_refused(config_file: Path, tmp_path: Path) -> None:
    """A file from another world gets a sentence."""
    file = tmp_path / "latin.csv"
    file.write_bytes(b"caf\xe9,192.0.2.1\n")

    done = pingmon(config_file, "targets", "import", str(file))

    assert done.returncode == 1
    assert (
        done.stderr == f"pingmon: {file} cannot be read (it is not UTF-8 text); name a file with lines `name,address`\n"
    )


def test_a_file_that_is_no_database_is_refused(config_file: Path, services: Services) -> None:
    """A damaged directory is said to be damaged, and what to do."""
    services.close()
    path = services.config.data_dir / "pingmon.db"
    path.write_bytes(b"garbage" * 1000)

    done = pingmon(config_file, "agents", "list")

    assert done.returncode == 1
    assert done.stderr == (
        f"pingmon: {path} cannot be opened as a database (file is not a database); "
        "restore a backup with `pingmon restore FILE`, or move it away to begin with an empty one\n"
    )


def test_a_directory_that_is_damaged_inside_keeps_the_server_from_starting(services: Services) -> None:
    """What still opens is looked through: one sentence, also where SQLite tells the damaged schema line by line."""
    services.close()
    path = services.config.data_dir / "pingmon.db"
    whole = path.read_bytes()
    refuse_damage(services.config.data_dir)

    def refusal(damaged: bytes) -> str:
        path.write_bytes(damaged)
        with pytest.raises(DamageError) as refused:
            refuse_damage(services.config.data_dir)
        return str(refused.value)

    said = [
        refusal(whole[: len(whole) * 3 // 4]),
        refusal(whole.replace(b"CREATE TABLE users", b"CREATE TABLE us rs")),
    ]

    assert all("pingmon.db is damaged" in text and "`pingmon restore FILE`" in text for text in said)
    assert not any("\n" in text for text in said)
