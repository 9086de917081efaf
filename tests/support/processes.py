"""Real servers and agents for end-to-end tests: free ports, own directories, private CA, nothing left behind.

    with running_server(tmp_path / "server") as server:
        with running_agent(server, tmp_path / "agent", "probe-1") as agent:
            agent.approve()
            wait_for(lambda: server.session().json("/api/v1/grid")["rtt_ms"], "a first round")

Every wait has a deadline and says what it waited for; a program that dies shows the end of its log. The programs die
with the test process. Start them from the main thread.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pingmon.cli.children import Child
from pingmon.cli.main import run as run_command
from pingmon.cli.pki_authority import create_authority, issue_leaf

from .web import Session

T = TypeVar("T")
LOOPBACK = ("dns:localhost", "ip:127.0.0.1", "ip:::1")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(probe: Callable[[], T | None], what: str, *, deadline_s: float = 20.0, every_s: float = 0.05) -> T:
    """The first truthy answer of `probe`; AssertionError naming `what` after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s for {what}; the last answer was {answer!r}")
        time.sleep(every_s)


def processes_about(home: Path) -> list[str]:
    """Command lines of other processes that name this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(home) in line:
                found.append(line)
    return found


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without any PINGMON_ setting, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PINGMON_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


@dataclass
class Server:
    """A `pingmon serve` and everything around it. `prefix` goes before its command line (nsenter, taskset, ...);
    `environment` and `program` (what Python is to run) are for this one process."""

    directory: Path
    port: int
    mode: str = "eventlet"
    prefix: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "pingmon")
    child: Child | None = None
    _session: Session | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca" / "ca.pem"

    @property
    def config(self) -> Path:
        return self.directory / "server.toml"

    def start(self) -> None:
        """Start the program and wait until it is ready; the log of all starts is `directory`/server.log."""
        argv = [*self.prefix, sys.executable, *self.program, "serve", "--config", str(self.config)]
        env = clean_environment(PINGMON_ASYNC_MODE=self.mode, **self.environment)
        child = self.child = Child("server", argv, self.directory / "server.log", env)
        anonymous = self.visitor()
        wait_for(lambda: _alive(child) and anonymous.is_up("/-/ready"), "the server to be ready")

    def stop(self) -> int:
        """Stop the program gracefully; its exit code."""
        assert self.child is not None
        return self.child.stop()

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `pingmon WORDS --config ...` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "pingmon", *words, "--config", str(self.config)],
            capture_output=True, text=True, timeout=60, env=clean_environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(
                f"pingmon {' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}"
            )
        return done

    def admin(self, *words: str) -> str:
        """What `pingmon WORDS` prints, run inside this process: as much a second program on the server's database as
        `cli`, but without a second's start. AssertionError where it fails."""
        said, complained = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(complained):
            code = run_command([*words, "--config", str(self.config)])
        assert code == 0, f"pingmon {' '.join(words)} ended with {code}: {complained.getvalue()}"
        return said.getvalue()

    def cli_json(self, *words: str) -> Any:
        """What `pingmon WORDS --output json` prints."""
        return json.loads(self.cli(*words, "--output", "json").stdout)

    def passphrase(self, label: str = "test", *more: str) -> str:
        """The clear text of a new passphrase."""
        return self.admin("passphrases", "create", "--label", label, *more).strip()

    def legacy_passphrase(self, label: str = "test", *more: str) -> str:
        """The same for clients that send it as it is."""
        return self.passphrase(label, "--legacy", *more)

    def visitor(self) -> Session:
        """Somebody who has not signed in."""
        return Session(self.url, self.ca_file)

    def session(self) -> Session:
        """An administrator's HTTP session; the first call makes the administrator by the one-time link."""
        if self._session is None:
            self._session = self.visitor()
            self._session.redeem(self.admin("users", "create", "--admin"))
        return self._session

    def agent_state(self, hostname: str) -> str | None:
        """`pending`, `approved`, ... as `pingmon agents list` has it; None for an unknown agent."""
        rows = json.loads(self.admin("agents", "list", "--output", "json"))
        return next((str(row["state"]) for row in rows if row["hostname"] == hostname), None)


@dataclass
class Agent:
    """A `pingmon-agent run` and its configuration."""

    server: Server
    directory: Path
    hostname: str
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "pingmon_agent")
    child: Child | None = None

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    def start(self) -> None:
        argv = [*self.prefix, sys.executable, *self.program, "run", "--config", str(self.config)]
        env = clean_environment(**self.environment)
        self.child = Child(self.hostname, argv, self.directory / "agent.log", env)

    def stop(self) -> int:
        """Stop the program gracefully; its exit code."""
        assert self.child is not None
        return self.child.stop()

    def identity(self) -> dict[str, str]:
        """What `pingmon-agent identity` tells of its key."""
        argv = [sys.executable, "-m", "pingmon_agent", "identity", "--json", "--config", str(self.config)]
        told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, env=clean_environment())
        found: dict[str, str] = json.loads(told.stdout)
        return found

    def approve(self) -> None:
        """Wait until the server has it pending, then approve it."""
        wait_for(lambda: self._alive() and self.server.agent_state(self.hostname), f"{self.hostname} to register")
        self.server.admin("agents", "approve", self.hostname)

    def _alive(self) -> bool:
        return self.child is None or _alive(self.child)


def make_pki(directory: Path, names: tuple[str, ...] = LOOPBACK) -> None:
    """`directory`/ca/ca.pem, server.pem and server.key for `names` (dns:NAME, ip:ADDRESS)."""
    create_authority(directory / "ca", "pingmon test CA")
    certificate, key = directory / "server.pem", directory / "server.key"
    issue_leaf(directory / "ca", "localhost", list(names), out_cert=certificate, out_key=key)


def write_server(
    server: Server, *, listen: str | None = None, interval_s: float, mesh: bool, extra: str = "", targets: str = ""
) -> None:
    """server.toml of `server`; `listen`: another address than the one it is reached at, `targets`: lines of [targets],
    `extra`: more TOML.
    """
    home = server.directory
    server.config.write_text(
        f'[server]\nlisten = "{listen or server.host}"\nport = {server.port}\n'
        f'public_url = "{server.url}"\ndata_dir = "{home / "data"}"\n'
        f'[tls]\ncertificate = "{home / "server.pem"}"\nkey = "{home / "server.key"}"\n'
        f"[targets]\nallow_loopback = true\n{targets}"
        # Hundreds of simulated agents come from here; whoever tests the limits comes from another 127.x.y.z.
        f'[limits]\nunlimited = "127.0.0.1/32, ::1/128"\n'
        f"[probing]\ninterval_s = {interval_s}\nmesh = {str(mesh).lower()}\n{extra}"
    )


def write_agent(
    agent: Agent, *, url: str, ip_address: str, passphrase: str, timeout_ms: int = 500, extra: str = ""
) -> None:
    """agent.toml and the passphrase file of `agent`; `extra` is more TOML."""
    home = agent.directory
    home.mkdir(parents=True, exist_ok=True)
    secret = home / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(passphrase + "\n")
    agent.config.write_text(
        f'[server]\nurl = "{url}"\nca_file = "{agent.server.ca_file}"\npassphrase_file = "{secret}"\n'
        f'[agent]\nhostname = "{agent.hostname}"\nip_address = "{ip_address}"\nstate_dir = "{home / "state"}"\n'
        f'[probe]\ntimeout_ms = {timeout_ms}\nwindow_ms = 200\nallow_loopback = true\n[metrics]\nlisten = ""\n{extra}'
    )


@contextmanager
def running_server(
    directory: Path,
    *,
    mode: str = "eventlet",
    interval_s: float = 1,
    mesh: bool = False,
    extra: str = "",
    targets: str = "",
    port: int | None = None,
    host: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "pingmon"),
) -> Iterator[Server]:
    """A ready server with an empty database; `extra` and `targets` as in `write_server`. Stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Server(directory, port or free_port(), mode, host=host, environment=dict(environment or {}))
    server.program = program
    make_pki(directory)
    write_server(server, interval_s=interval_s, mesh=mesh, extra=extra, targets=targets)
    server.admin("db", "upgrade")
    try:
        server.start()
        yield server
    finally:
        if server.child is not None:
            server.stop()


@contextmanager
def running_agent(
    server: Server,
    directory: Path,
    hostname: str,
    *,
    ip_address: str = "127.0.0.1",
    passphrase: str | None = None,
    extra: str = "",
    environment: Mapping[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "pingmon_agent"),
) -> Iterator[Agent]:
    """A started agent (still pending: see `Agent.approve`); `extra` is more TOML. Stopped at the end."""
    agent = Agent(server, directory, hostname, environment=dict(environment or {}), program=program)
    url = server.url.replace("https://", "wss://")
    secret = passphrase or server.passphrase(hostname)
    write_agent(agent, url=url, ip_address=ip_address, passphrase=secret, extra=extra)
    try:
        agent.start()
        yield agent
    finally:
        if agent.child is not None:
            agent.stop()


def _alive(child: Child) -> bool:
    if not child.running:
        end = child.last_lines(30)
        raise AssertionError(f"{child.name} ended with {child.process.returncode}; its last lines:\n{end}")
    return True
