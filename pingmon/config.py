"""The server's settings: one TOML file, every key also as PINGMON_<SECTION>_<KEY>.

Unknown keys and wrong types are refused, each refusal naming the key, the value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT_PATH = Path("/etc/pingmon/server.toml")
LOG_LEVELS = ("debug", "info", "warning", "error")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(Exception):
    """The configuration cannot be used; the text names the key, the value and what is allowed."""


def _range(low: float, high: float) -> dict[str, Any]:
    return {"range": (low, high)}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _networks(key: str, text: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(word) for word in _words(text)]
    except ValueError as error:
        raise ConfigError(f"{key} = {text!r} is wrong: {error}; list networks such as 192.0.2.0/24") from None


@dataclass(frozen=True, kw_only=True)
class ServerSection:
    """Where to listen and where to keep things."""

    listen: str = "0.0.0.0"  # noqa: S104 - a server for other hosts
    port: int = field(default=8443, metadata=_range(0, 65535))
    public_url: str = ""
    data_dir: str = "/var/lib/pingmon"


@dataclass(frozen=True, kw_only=True)
class TlsSection:
    """The chain the server shows."""

    certificate: str = "/etc/pingmon/server.pem"
    key: str = "/etc/pingmon/server.key"
    minimum_version: str = field(default="1.3", metadata={"choice": ("1.2", "1.3")})


@dataclass(frozen=True, kw_only=True)
class ProbingSection:
    """How often agents ping, whether they ping each other, and what counts as slow."""

    interval_s: float = field(default=5.0, metadata=_range(1, 3600))
    mesh: bool = True
    warn_ms: float = field(default=50.0, metadata=_range(0.001, 60_000))
    bad_ms: float = field(default=200.0, metadata=_range(0.001, 60_000))


@dataclass(frozen=True, kw_only=True)
class TargetsSection:
    """What may be aimed at, and how much of it. Networks and domains are lists, separated by commas.

    `foreign_*`: what one target outside the owned networks may get from the whole fleet; `agent_*`: of one agent.
    """

    allow_loopback: bool = False
    owned_networks: str = ""
    owned_domains: str = ""
    foreign_packets_per_s: float = field(default=10.0, metadata=_range(0.001, 1_000_000))
    foreign_agents: int = field(default=20, metadata=_range(0, 1_000_000))
    agent_targets: int = field(default=12_000, metadata=_range(1, 12_000))
    agent_packets_per_s: float = field(default=2_500.0, metadata=_range(1, 1_000_000))

    @property
    def networks(self) -> list[Network]:
        """`owned_networks`, parsed; raises ConfigError."""
        return _networks("targets.owned_networks", self.owned_networks)

    @property
    def domains(self) -> list[str]:
        """`owned_domains` in lower case, without dots around them."""
        return [word.lower().strip(".") for word in _words(self.owned_domains)]


@dataclass(frozen=True, kw_only=True)
class RetentionSection:
    """How long raw rounds, minutes and hours stay."""

    raw_hours: float = field(default=24.0, metadata=_range(1, 24 * 366))
    minute_days: float = field(default=30.0, metadata=_range(0.05, 3660))
    hour_days: float = field(default=400.0, metadata=_range(0.05, 36600))


@dataclass(frozen=True, kw_only=True)
class MetricsSection:
    """Who may read /metrics without signing in: addresses and networks, separated by commas."""

    allow: str = "127.0.0.0/8, ::1/128"


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """Where many agents share an address: networks, separated by commas. Everybody else is limited by address."""

    nat: str = ""
    unlimited: str = ""


@dataclass(frozen=True, kw_only=True)
class LogSection:
    """What is written to standard error."""

    level: str = field(default="info", metadata={"choice": LOG_LEVELS})


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, checked."""

    server: ServerSection = ServerSection()
    tls: TlsSection = TlsSection()
    probing: ProbingSection = ProbingSection()
    targets: TargetsSection = TargetsSection()
    retention: RetentionSection = RetentionSection()
    metrics: MetricsSection = MetricsSection()
    limits: LimitsSection = LimitsSection()
    log: LogSection = LogSection()

    @property
    def data_dir(self) -> Path:
        """Where databases and secrets lie."""
        return Path(self.server.data_dir)

    @property
    def metrics_networks(self) -> list[Network]:
        """`metrics.allow`, parsed; raises ConfigError."""
        return _networks("metrics.allow", self.metrics.allow)

    @property
    def nat_networks(self) -> list[Network]:
        """`limits.nat`, parsed; raises ConfigError."""
        return _networks("limits.nat", self.limits.nat)

    @property
    def unlimited_networks(self) -> list[Network]:
        """`limits.unlimited`, parsed; raises ConfigError."""
        return _networks("limits.unlimited", self.limits.unlimited)

    @property
    def public_url(self) -> str:
        """The address people use, without a slash at its end."""
        return self.server.public_url.rstrip("/") or f"https://127.0.0.1:{self.server.port}"


_SECTIONS: dict[str, type[Any]] = {
    "server": ServerSection,
    "tls": TlsSection,
    "probing": ProbingSection,
    "targets": TargetsSection,
    "retention": RetentionSection,
    "metrics": MetricsSection,
    "limits": LimitsSection,
    "log": LogSection,
}
_WORDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read `path`, then the environment; raises ConfigError."""
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; write it (docs/operations.md has an example) or name another file "
                          "with --config") from None  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give this user read permission") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return build(tables, os.environ if environ is None else environ)


def build(tables: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """A Config from parsed TOML and environment variables; raises ConfigError."""
    for name in tables:
        if name not in _SECTIONS:
            raise ConfigError(f"[{name}] is not a section of server.toml; there are {', '.join(_SECTIONS)}")
    sections = {name: _section(name, kind, tables.get(name, {}), environ) for name, kind in _SECTIONS.items()}
    config = Config(**sections)
    _check(config)
    return config


def _section(name: str, kind: type[Any], table: object, environ: Mapping[str, str]) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{name} must be a section: write [{name}] on a line of its own")
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{name}.{key} is not a setting; [{name}] has {', '.join(known)}")
        values[key] = _value(f"{name}.{key}", known[key], value)
    for key, spec in known.items():
        variable = f"PINGMON_{name}_{key}".upper()
        if variable in environ:
            values[key] = _value(variable, spec, _from_text(variable, spec, environ[variable]))
    return kind(**values)


def _kind(spec: Any) -> type:
    return type(spec.default)


def _from_text(variable: str, spec: Any, text: str) -> object:
    kind = _kind(spec)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{variable}={text!r} is wrong: it must be {_WORDS[kind]}") from None


def _value(key: str, spec: Any, value: object) -> object:
    kind = _kind(spec)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key} = {value!r} is wrong: it must be {_WORDS[kind]}")
    if "range" in spec.metadata:
        low, high = spec.metadata["range"]
        if not low <= value <= high:
            raise ConfigError(f"{key} = {value!r} is wrong: it must lie between {low} and {high}")
    if "choice" in spec.metadata and value not in spec.metadata["choice"]:
        raise ConfigError(f"{key} = {value!r} is wrong: it must be one of {', '.join(spec.metadata['choice'])}")
    return value


def _check(config: Config) -> None:
    probing = config.probing
    if probing.warn_ms >= probing.bad_ms:
        raise ConfigError(f"probing.warn_ms = {probing.warn_ms} must be smaller than probing.bad_ms = {probing.bad_ms}")
    _ = config.metrics_networks, config.targets.networks, config.nat_networks, config.unlimited_networks
    if not _usable(config.public_url):
        raise ConfigError(
            f"server.public_url = {config.server.public_url!r} is wrong: it must look like https://monitor.example.net:8443"
        )


def _usable(public_url: str) -> bool:
    try:
        url = urlsplit(public_url)
        return url.scheme == "https" and bool(url.hostname) and url.port != 0 and public_url == f"https://{url.netloc}"
    except ValueError:
        return False  # a port that is no number, brackets that do not close
