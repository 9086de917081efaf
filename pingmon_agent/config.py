"""Typed settings of the agent: TOML plus `PINGMON_AGENT_<SECTION>_<KEY>`, checked whole before anything starts.

Every refusal is one sentence that names the key, the value and what is allowed. Must not know: sockets, threads.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .wire.contract import WireError, check_hostname, check_ip
from .wire.framing import PASSPHRASE, PIN

DEFAULT_PATH = Path("/etc/pingmon/agent.toml")
ENV_PREFIX = "PINGMON_AGENT_"
DEFAULT_PORT = 8443
VERSIONS = ("1.3", "1.2")  # of TLS
LOG_LEVELS = ("debug", "info", "warning", "error")
BUFFERS = ("auto", "memory", "tmpfs", "disk")
RUNTIME_DIR, STATE_DIR = Path("/run/pingmon-agent"), Path("/var/lib/pingmon-agent")
IDENTITY_FILE, PIN_FILE = "identity.key", "server.pin"


class ConfigError(Exception):
    """The configuration cannot be used; the text is one sentence that says what to change."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the server is and how it is trusted; `identity` is its pin, which a passphrase brings along too."""

    url: str = ""
    ca_file: str = ""
    passphrase_file: str = ""
    identity: str = ""
    minimum_tls: str = "1.3"

    @property
    def host(self) -> str:
        """Host name or address in `url`, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port in `url`, 8443 if none is given."""
        return urlsplit(self.url).port or DEFAULT_PORT


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Who this agent is, where it keeps its key and its rounds. `start_spread_s`: wait up to this before connecting."""

    hostname: str = ""
    ip_address: str = ""
    state_dir: str = str(STATE_DIR)
    exit_when_unapproved: bool = False
    start_spread_s: float = 0.0
    buffer: str = "auto"
    buffer_dir: str = ""
    buffer_mib: int = 32

    @property
    def directory(self) -> Path | None:
        """Where rounds are kept on file; None for in memory only. `auto` takes files where somebody made a place."""
        if self.buffer == "memory":
            return None
        if self.buffer_dir:
            return Path(self.buffer_dir)
        if self.buffer == "disk":
            return STATE_DIR
        made = RUNTIME_DIR.is_dir() and os.access(RUNTIME_DIR, os.W_OK | os.X_OK)
        return RUNTIME_DIR if made or self.buffer == "tmpfs" else None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How long a reply may take, over how much time the sends of a round are spread (both in ms), whether this
    host may be told to ping itself, and the file with what else it refuses.
    """

    timeout_ms: int = 2000
    window_ms: int = 1000
    policy_file: str = ""
    allow_loopback: bool = False


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Where /metrics is served: `host:port`, or empty for nowhere."""

    listen: str = "127.0.0.1:9765"


@dataclass(frozen=True, kw_only=True)
class Log:
    """How much is said on stderr."""

    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration, checked. The passphrase itself never shows in a repr; it is empty once approved."""

    server: Server
    agent: Agent
    probe: Probe
    metrics: Metrics
    log: Log
    passphrase: str = field(repr=False)

    @property
    def pin(self) -> str:
        """The server's pin, as configured or as the passphrase has it; empty where only `state_dir` has it."""
        return self.server.identity or self.passphrase[-32:]


SECTIONS: dict[str, type[Server | Agent | Probe | Metrics | Log]] = {
    "server": Server,
    "agent": Agent,
    "probe": Probe,
    "metrics": Metrics,
    "log": Log,
}
_KINDS = {"str": (str, "text in quotes"), "int": (int, "a whole number"), "bool": (bool, "true or false")}


def load(path: Path = DEFAULT_PATH, env: Mapping[str, str] | None = None, *, enrolled: bool = True) -> Config:
    """The configuration in `path` with `env` laid over it; raises ConfigError with one sentence.

    `enrolled`: it must be possible to enrol or come back with it; False leaves the passphrase aside.
    """
    tables = _with_env(_read(path), os.environ if env is None else env)
    made: dict[str, Any] = {name: _section(name, kind, tables.get(name, {})) for name, kind in SECTIONS.items()}
    _check_server(made["server"])
    made["agent"] = _check_agent(made["agent"])
    _check_probe(made["probe"])
    listen_address(made["metrics"].listen)
    level = made["log"].level
    _require(level in LOG_LEVELS, f"log.level is {level!r}; allowed are {', '.join(LOG_LEVELS)}")
    return Config(**made, passphrase=_read_passphrase(made["server"], made["agent"]) if enrolled else "")


def listen_address(listen: str) -> tuple[str, int] | None:
    """(host, port) of `metrics.listen`, None for off; raises ConfigError."""
    if not listen:
        return None
    host, colon, port = listen.rpartition(":")
    ok = bool(colon and host) and port.isdigit() and int(port) < 65536
    _require(ok, f'metrics.listen is {listen!r}; write "host:port", such as "127.0.0.1:9765", or "" to switch it off')
    return host.strip("[]"), int(port)


def _require(ok: bool, sentence: str) -> None:
    if not ok:
        raise ConfigError(sentence)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"cannot read the configuration {path}: {err.strerror}; give another with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not valid TOML: {err}") from None


def _with_env(tables: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(set(tables) - set(SECTIONS))
    _require(not unknown, f"unknown section [{''.join(unknown[:1])}]; allowed are {', '.join(SECTIONS)}")
    merged = {name: _table(name, tables.get(name, {})) for name in SECTIONS}
    for variable, value in env.items():
        section, _, key = variable.removeprefix(ENV_PREFIX).lower().partition("_")
        if variable.startswith(ENV_PREFIX) and section in merged:
            merged[section][key] = _parse_env(section, key, variable, value)
    return merged


def _table(name: str, table: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{name} must be a section: write [{name}] on a line of its own and its keys below")
    return dict(table)


def _parse_env(section: str, key: str, variable: str, value: str) -> object:
    kinds = {f.name: f.type for f in dataclasses.fields(SECTIONS[section])}
    kind = kinds.get(key, "str")
    if kind == "str":
        return value
    if kind == "bool" and value in ("true", "false"):
        return value == "true"
    try:
        return int(value) if kind == "int" else float(value)
    except ValueError:
        wanted = {"int": "a whole number", "bool": "true or false"}.get(str(kind), "a number")
        raise ConfigError(f"{variable} is {value!r}; it must be {wanted}") from None


def _section(name: str, kind: type[Any], table: dict[str, Any]) -> Any:
    fields = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    for key, value in table.items():
        _require(key in fields, f"unknown key {name}.{key}; allowed in [{name}] are {', '.join(fields)}")
        _check_type(f"{name}.{key}", fields[key], value)
    return kind(**table)


def _check_type(where: str, kind: str, value: object) -> None:
    if kind == "float":
        ok, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    else:
        python_type, wanted = _KINDS[kind]
        ok = type(value) is python_type
    _require(ok, f"{where} is {value!r}; it must be {wanted}")


def _check_server(server: Server) -> None:
    for key in ("url", "ca_file"):
        _require(bool(getattr(server, key)), f"server.{key} is missing; set it in section [server]")
    pin = server.identity
    _require(not pin or PIN.fullmatch(pin) is not None, f"server.identity is {pin!r}; a pin has 32 characters a-z, 0-9")
    scheme = server.url.partition("://")[0]
    _require(
        scheme == "wss",
        f"server.url is {server.url!r}; only wss:// is allowed, as the passphrase and all results cross this line",
    )
    try:
        usable = bool(server.host) and server.port > 0 and urlsplit(server.url).path in ("", "/")
    except ValueError:
        usable = False
    _require(usable, f"server.url is {server.url!r}; write it as wss://host:port and nothing more")
    _readable("server.ca_file", server.ca_file)
    _require(server.minimum_tls in VERSIONS, f"server.minimum_tls is {server.minimum_tls!r}; allowed are 1.3 and 1.2")


def _readable(key: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"cannot read {key} {file}: {err.strerror}; check the path and who may read it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} {file} is not text; check that it is the right file") from None


def _read_passphrase(server: Server, agent: Agent) -> str:
    """What lets this agent ask for approval; empty where its server is known without, as after an approval."""
    file, known = server.passphrase_file, bool(server.identity) or (Path(agent.state_dir) / PIN_FILE).exists()
    if known and (not file or not Path(file).exists() or not _readable("server.passphrase_file", file).strip()):
        return ""
    where = f"server.passphrase_file {file}"
    _require(bool(file), f"{where}is missing; set it in section [server], or server.identity if approved beforehand")
    text = _readable("server.passphrase_file", file).strip()
    _require(
        text[:4] != "pml-", f"{where} is for legacy agents; make one for this agent with `pingmon passphrases create`"
    )
    form = PASSPHRASE.fullmatch(text) is not None
    _require(form, f"{where} must hold one line with the passphrase (pm1-...); create one on the server")
    same = server.identity in ("", text[-32:])
    _require(same, f"{where} is for another server than server.identity {server.identity!r}; copy both from one server")
    return text


def _check_agent(agent: Agent) -> Agent:
    try:
        name = check_hostname(agent.hostname or socket.gethostname())
    except WireError as err:
        raise ConfigError(f"agent.hostname is {agent.hostname or socket.gethostname()!r}: {err.message}") from None
    try:
        address = check_ip(agent.ip_address) if agent.ip_address else ""
    except WireError as err:
        raise ConfigError(f"agent.ip_address is {agent.ip_address!r}: {err.message}") from None
    spread, place = agent.start_spread_s, agent.state_dir
    _require(0 <= spread <= 300, f"agent.start_spread_s is {spread}; it must lie between 0 and 300 seconds")
    _require(Path(place).is_absolute(), f"agent.state_dir is {place!r}; write an absolute path")
    _check_buffer(agent)
    return dataclasses.replace(agent, hostname=name, ip_address=address)


def _check_buffer(agent: Agent) -> None:
    _require(agent.buffer in BUFFERS, f"agent.buffer is {agent.buffer!r}; allowed are {', '.join(BUFFERS)}")
    mib = agent.buffer_mib
    _require(1 <= mib <= 1024, f"agent.buffer_mib is {mib}; it must lie between 1 and 1024")
    where, kind = agent.buffer_dir, agent.buffer
    _require(not where or Path(where).is_absolute(), f"agent.buffer_dir is {where!r}; write an absolute path")
    alone = bool(where) and kind == "memory"
    _require(not alone, 'agent.buffer_dir is set, but agent.buffer is "memory"; set one of the two only')


def _check_probe(probe: Probe) -> None:
    for key, low, high in (("timeout_ms", 10, 60_000), ("window_ms", 0, 60_000)):
        value = getattr(probe, key)
        _require(low <= value <= high, f"probe.{key} is {value}; it must lie between {low} and {high}")
