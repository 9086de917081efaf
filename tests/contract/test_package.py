"""The agent on its own: the wheel with the extra [agent] and nothing of the server's stack."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.processes import Agent, Server, clean_environment, make_pki, write_agent

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
ABSENT = ("flask", "sqlmodel", "eventlet", "gevent", "apscheduler", "flask_security")

IMPORT_ALL = """
import importlib, pkgutil, sys
import pingmon_agent
for found in pkgutil.walk_packages(pingmon_agent.__path__, "pingmon_agent."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=110, cwd=cwd, env=clean_environment()
    )


def good(*words: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = run(*words, cwd=cwd)
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_importing_the_whole_agent_loads_nothing_of_the_server() -> None:
    """Every module of pingmon_agent, imported in a clean interpreter, leaves the server and its stack unloaded."""
    loaded = set(good(sys.executable, "-c", IMPORT_ALL).split())
    assert "pingmon_agent" in loaded
    assert not loaded & {*ABSENT, "pingmon", "sqlalchemy", "flask_socketio"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a virtual environment that holds the locked agent requirements and our wheel."""
    home = tmp_path_factory.mktemp("agent-only")
    source = home / "source"
    source.mkdir()
    # From a copy: building leaves files behind, and several builds at a time trip over each other.
    good("cp", "-r", *(ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "pingmon_agent")), source)
    good("cp", "-r", "--parents", *_server_sources(), source, cwd=ROOT)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    good(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", home, source)
    venv.create(home / "venv", with_pip=False)
    into = (*pip, "--python", home / "venv" / "bin" / "python", "install")
    good(*into, "--require-hashes", "--no-deps", "-r", ROOT / "requirements" / "agent.txt")
    good(*into, "--no-deps", next(home.glob("pingmon-*.whl")))
    return home / "venv" / "bin"


def _server_sources() -> list[str]:
    """The server's files without what was built or installed into its folders."""
    return sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "pingmon").rglob("*")
        if path.is_file() and not {"node_modules", "__pycache__"} & set(path.parts)
    )


def test_the_agent_alone_installs_and_starts(installed: Path, tmp_path: Path) -> None:
    """From the wheel and requirements/agent.txt: version and `config check` work, and no server package is there."""
    server = Server(tmp_path / "server", 1)
    server.directory.mkdir()
    make_pki(server.directory)
    agent = Agent(server, tmp_path / "agent", "probe-1")
    write_agent(
        agent, url="wss://127.0.0.1:1", ip_address="127.0.0.1", passphrase=f"pm1-{8 * '0'}-{26 * '0'}-{32 * '0'}"
    )

    assert good(installed / "pingmon-agent", "--version", cwd=tmp_path).startswith("pingmon-agent 0.")
    checked = good(installed / "pingmon-agent", "config", "check", "--config", agent.config, cwd=tmp_path)
    assert checked == f"{agent.config} is fine: this is agent probe-1, its server is wss://127.0.0.1:1\n"
    finds = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    assert good(installed / "python", "-c", finds, *ABSENT, "icmplib", cwd=tmp_path).split() == ["icmplib"]


def test_the_server_command_says_what_it_lacks(installed: Path, tmp_path: Path) -> None:
    """Where only the agent is installed, `pingmon` answers with one sentence instead of a traceback."""
    for words in (("agents", "list"), ("serve",)):
        done = run(installed / "pingmon", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("pingmon: the package ")
        assert done.stderr.endswith(" is not installed here; install `pingmon[server]`\n")
