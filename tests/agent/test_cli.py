"""The commands: exit codes and the sentence on stderr."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pingmon_agent import cli
from pingmon_agent.agent import version

from .certificates import Authority
from .namespaces import Namespace
from .pretend import APPROVED, PASSPHRASE, AgentProcess, PretendServer, targets


def configuration(folder: Path, url: str, ca: Path, listen: str = "127.0.0.1:9765") -> Path:
    """A configuration file."""
    (folder / "passphrase").write_text(PASSPHRASE)
    (folder / "passphrase").chmod(0o600)
    path = folder / "agent.toml"
    path.write_text(
        f'[server]\nurl = "{url}"\nca_file = "{ca}"\npassphrase_file = "{folder}/passphrase"\n'
        f'[agent]\nhostname = "probe-1"\nstate_dir = "{folder}/state"\n[metrics]\nlisten = "{listen}"\n'
    )
    return path


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_config_check_says_that_all_is_well(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, and who this agent is."""
    path = configuration(tmp_path, "wss://localhost:1", authority.file)

    assert cli.main(["config", "check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} is fine: this is agent probe-1, its server is wss://localhost:1\n"


def test_a_passphrase_that_others_can_read_is_a_warning(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """Still 0, with the command that mends it."""
    path = configuration(tmp_path, "wss://localhost:1", authority.file)
    (tmp_path / "passphrase").chmod(0o640)
    code = cli.main(["config", "check", "--config", str(path)])

    file = tmp_path / "passphrase"
    expected = f"warning: others on this host can read the passphrase in {file}; run `chmod 600 {file}`\n"
    assert (code, capsys.readouterr().err) == (0, expected)


def test_a_configuration_error_is_78_and_one_sentence(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """For `run` as for `config check`."""
    path = configuration(tmp_path, "ws://localhost:1", authority.file)
    for command in (["run"], ["config", "check"], ["status"]):
        assert cli.main([*command, "--config", str(path)]) == 78

        problem = capsys.readouterr().err
        assert problem.startswith("pingmon-agent: server.url is 'ws://localhost:1'; only wss:// is allowed")
        assert problem.count("\n") == 1


def test_config_check_connect_tries_the_line(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 and the sentence of the TLS door."""
    port = free_port()
    path = configuration(tmp_path, f"wss://localhost:{port}", authority.file)

    assert cli.main(["config", "check", "--connect", "--config", str(path)]) == 1
    assert f"nothing listens on localhost:{port}; check that the server runs" in capsys.readouterr().err


def test_status_without_an_agent_says_where_it_looked(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, the address, and what to do."""
    port = free_port()
    path = configuration(tmp_path, "wss://localhost:1", authority.file, f"127.0.0.1:{port}")

    assert cli.main(["status", "--config", str(path)]) == 1
    expected = f"no agent answers on 127.0.0.1:{port} ([Errno 111] Connection refused); is it running? see its log"
    assert capsys.readouterr().err == f"pingmon-agent: {expected}\n"


def test_identity_says_what_to_approve(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a passphrase or a server; made at the first call, the same at the next; the private half never shows."""
    path = configuration(tmp_path, "wss://localhost:1", authority.file)
    (tmp_path / "passphrase").unlink()
    codes = [cli.main(["identity", "--config", str(path)]), cli.main(["identity", "--json", "--config", str(path)])]
    table, text = capsys.readouterr().out.rsplit("\n", 2)[0:2]
    said = json.loads(text)
    seed = (tmp_path / "state" / "identity.key").read_text().split()[1]

    assert codes == [0, 0]
    assert set(said) == {"fingerprint", "key_fpr", "public_key", "hostname", "ip_address"}
    assert f"fingerprint  {said['fingerprint']}" in table
    assert said["ip_address"] in ("127.0.0.1", "::1")
    assert seed not in table + text


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["ping"], ["ping", "-c", "0", "x"], ["config"], ["run", "extra"]])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own code."""
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)

    assert ended.value.code == 2


@pytest.mark.root
def test_ping_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """Each probe on a line with its outcome; 0 if anything answered, 1 if nothing did."""
    code = cli.main(["ping", "-c", "2", "-i", "0.05", "127.0.0.1", "::1", "no-such-name.invalid"])
    lines = capsys.readouterr().out.splitlines()

    assert code == 0
    assert re.fullmatch(r"127\.0\.0\.1  127\.0\.0\.1  \d+\.\d{3} ms", lines[0])
    assert re.fullmatch(r"::1  ::1  \d+\.\d{3} ms", lines[1])
    assert lines[2] == "no-such-name.invalid  -  name does not resolve"
    assert lines[6] == "6 probes, 4 replies (raw socket, kernel time stamps)"
    assert cli.main(["ping", "-c", "1", "no-such-name.invalid"]) == 1


@pytest.mark.root
def test_without_permission_ping_and_run_say_what_to_allow(
    make_namespace: Callable[[], Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    """1 and one sentence."""
    here = make_namespace()
    here.sysctl("net.ipv4.ping_group_range", "1 0")
    version()  # read while this user still may: a checkout in /root is closed to nobody

    assert here.run(lambda: cli.main(["ping", "127.0.0.1"]), unprivileged=True) == 1
    assert "allow ping sockets with `sysctl -w net.ipv4.ping_group_range" in capsys.readouterr().err


@pytest.mark.root
@pytest.mark.e2e
def test_status_of_a_running_agent(tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    """1 and the reasons while it is not ready; 0 and its facts once it is."""
    server = PretendServer(authority.issue("127.0.0.1"))
    agent = AgentProcess(tmp_path, server.port, authority.file, metrics_listen="127.0.0.1:0")
    port = agent.wait_log("metrics served").rpartition("=")[2]
    path = configuration(tmp_path, f"wss://127.0.0.1:{server.port}", authority.file, f"127.0.0.1:{port}")
    try:
        server.wait("handshake")
        waiting = cli.main(["status", "--config", str(path)])
        before = capsys.readouterr().out
        server.tell("push", body=APPROVED)
        server.tell("targets", body=targets("127.0.0.1"))
        server.wait("report")
        ready = cli.main(["status", "--config", str(path)])
        after = capsys.readouterr().out
    finally:
        agent.stop()
        server.close()

    assert waiting == 1
    assert "no targets are loaded" in before
    assert ready == 0
    assert re.search(r"^state +approved$", after, re.MULTILINE)
    assert re.search(rf"^server_identity +{PASSPHRASE[-32:]}$", after, re.MULTILINE)
    assert re.search(r"^identity +(\S{4} ){3}\S{4}$", after, re.MULTILINE)
    assert re.search(r"^targets +1$", after, re.MULTILINE)


@pytest.mark.root
def test_a_taken_metrics_port_is_one_sentence(tmp_path: Path, authority: Authority) -> None:
    """1; the agent does not start half."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path = configuration(tmp_path, "wss://127.0.0.1:1", authority.file, listen)
        command = [sys.executable, "-m", "pingmon_agent", "run", "--config", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert done.returncode == 1
    expected = f"metrics.listen {listen} is taken by another program; set another address, or '' for none"
    assert expected in done.stderr


def test_version_is_the_installed_one() -> None:
    """`pingmon-agent --version` through the real door."""
    done = subprocess.run([sys.executable, "-m", "pingmon_agent", "--version"], capture_output=True, text=True)

    assert re.fullmatch(r"pingmon-agent \d+\.\d+\.\d+\S*\n", done.stdout)


def test_the_agent_starts_without_the_servers_stack() -> None:
    """A clean interpreter that has run the agent's imports knows no flask, sqlmodel, eventlet, and no test tools."""
    probe = "import sys, pingmon_agent.cli; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    for module in ("pingmon", "flask", "sqlmodel", "sqlalchemy", "eventlet", "gevent", "numpy", "aiohttp"):
        assert f"'{module}'" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
@pytest.mark.parametrize("command", [["run"], ["config", "check"]])
def test_an_agent_whose_policy_guards_nothing_does_not_start(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Code 78 and what to do, before anything is pinged."""
    path = configuration(tmp_path, "wss://127.0.0.1:1", authority.file)
    policy = tmp_path / "policy.toml"
    policy.write_text("max_targets = 1\n")
    policy.chmod(0o666)
    path.write_text(path.read_text() + f'[probe]\npolicy_file = "{policy}"\n')

    code = cli.main([*command, "--config", str(path)])

    assert code == 78
    said = capsys.readouterr().err
    assert f"others than root may write {policy}, so it guards nothing; run `chmod go-w {policy}`" in said
