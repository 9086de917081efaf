"""`pingmon-agent doctor`: what is broken is named with its mend, what is well is said to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pingmon_agent import doctor
from pingmon_agent.agent import version

from .certificates import Authority
from .namespaces import Namespace
from .pretend import PASSPHRASE, PretendServer


def lines(path: Path) -> list[str]:
    said: list[str] = []
    doctor.run(path, said.append)
    return said


@pytest.fixture
def config_file(tmp_path: Path, authority: Authority) -> Path:
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE + "\n")
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[server]\nurl = "wss://127.0.0.1:1"\nca_file = "{authority.file}"\npassphrase_file = "{secret}"\n'
        f'[agent]\nhostname = "probe-1"\nstate_dir = "{tmp_path}/state"\n[metrics]\nlisten = ""\n'
    )
    return path


@pytest.mark.root
def test_a_healthy_host_is_told_so(config_file: Path, authority: Authority) -> None:
    """Every line is ok, and the time of a ping to itself is shown."""
    server = PretendServer(authority.issue("127.0.0.1"))
    config_file.write_text(config_file.read_text().replace(':1"', f':{server.port}"'))
    try:
        said = lines(config_file)
    finally:
        server.close()

    assert [line for line in said if not line.startswith("ok ")] == []
    assert any("kernel time stamps, 127.0.0.1 answers in" in line for line in said)
    assert any("answers and is trusted" in line for line in said)


@pytest.mark.root
def test_every_fault_comes_with_its_mend(config_file: Path) -> None:
    """An open passphrase file, a server that is not there, a policy that cannot be read: all named in one go."""
    (config_file.parent / "passphrase").chmod(0o644)
    config_file.write_text(config_file.read_text() + '[probe]\npolicy_file = "/nonexistent"\n')
    mend = [line for line in lines(config_file) if line.startswith("MEND")]

    assert len(mend) == 3
    assert "passphrase" in mend[0]
    assert "chmod" in mend[0] or "0600" in mend[0]
    assert "/nonexistent cannot be read" in mend[1]
    assert "server wss://127.0.0.1:1" in mend[2]


@pytest.mark.root
def test_a_missing_permission_is_told_with_the_command(tmp_path: Path, make_namespace: Callable[[], Namespace]) -> None:
    """As nobody, with ping sockets closed: the sysctl and the capability are printed."""
    here = make_namespace()
    here.sysctl("net.ipv4.ping_group_range", "1 0")
    version()  # read while this user still may
    said = here.run(lambda: lines(tmp_path / "none.toml"), unprivileged=True)

    assert said[0].startswith("MEND  configuration: ")
    assert "ping groups: 1 0" in said[-1]
    assert "sysctl -w net.ipv4.ping_group_range='0 2147483647'" in said[-1]
