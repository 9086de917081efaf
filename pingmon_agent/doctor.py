"""`pingmon-agent doctor`: everything a host needs to be a good agent, tried one by one, each fault with its mend.

Nothing is changed, and nothing but loopback is pinged. Must not know: how a running agent does its work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import config as configuration
from . import tls
from .config import IDENTITY_FILE, Config, ConfigError
from .credential import hidden, load_here, open_to_others
from .engine import EchoEngine
from .icmp import NoPermissionError
from .keep import own_identity
from .plan import Plan
from .policy import PolicyError, policy_of
from .wire.keyfile import KeyFileError
from .wire.seal import grouped

_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
_PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")
# Replies and transmit stamps of 5,000 targets that answer at once.
_ROOM_WANTED = 10_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend`: what to do where it is not well."""

    what: str
    well: bool
    mend: str = ""

    def line(self) -> str:
        """As printed."""
        return f"ok    {self.what}" if self.well else f"MEND  {self.what}: {self.mend}"


def findings(path: Path) -> Iterator[Finding]:
    """Look at everything; what depends on something broken is left out."""
    config: Config | None = None
    try:
        config = load_here(path)
        yield Finding(f"configuration {path}, this is agent {config.agent.hostname}", True)
    except ConfigError as error:
        yield Finding("configuration", False, str(error))
    if config is not None:
        yield from _files(config)
        yield _server(config)
        yield _metrics(config)
        yield _buffer_files(config)
    yield from _icmp()


def _files(config: Config) -> Iterator[Finding]:
    warning = open_to_others(config)
    file = config.server.passphrase_file
    secret = f"passphrase file {file}" if config.passphrase else "no passphrase is needed"
    if hidden(config):
        secret = f"passphrase {file} is given by systemd to the running agent, and cannot be looked at from here"
    yield Finding(secret, warning is None, warning or "")
    yield _identity(config)
    try:
        policy_of(config.probe.policy_file, config.probe.allow_loopback)
        yield Finding(f"policy {config.probe.policy_file or '(standard)'}", True)
    except PolicyError as error:
        yield Finding("policy", False, str(error))


def _identity(config: Config) -> Finding:
    """Looked at, never made: doctor may run as another user than the agent."""
    place = Path(config.agent.state_dir)
    if not (place / IDENTITY_FILE).exists():
        seat = place if place.is_dir() else place.parent
        mend = f"make it for user {os.geteuid()}, or set another agent.state_dir"
        return Finding(
            f"identity: will be made in {place} at the first start", os.access(seat, os.W_OK | os.X_OK), mend
        )
    try:
        return Finding(f"identity {grouped(own_identity(config).fingerprint)}", True)
    except KeyFileError as error:
        return Finding("identity", False, str(error))


def _server(config: Config) -> Finding:
    server = config.server
    try:
        context = tls.client_context(server.ca_file, server.minimum_tls)
        tls.connect(server.host, server.port, context, server.ca_file).close()
    except (ConfigError, tls.ConnectError) as error:
        return Finding(f"server {server.url}", False, str(error))
    return Finding(f"server {server.url} answers and is trusted", True)


def _metrics(config: Config) -> Finding:
    address = configuration.listen_address(config.metrics.listen)
    if address is None:
        return Finding("metrics are switched off", True)
    try:
        socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET).close()
    except OSError as error:
        mend = f"{error.strerror}; stop what holds it (an agent that runs here, perhaps) or set another metrics.listen"
        return Finding(f"metrics.listen {config.metrics.listen}", False, mend)
    return Finding(f"metrics.listen {config.metrics.listen} is free", True)


def _buffer_files(config: Config) -> Finding:
    """Where rounds are kept: is it there, may it be written, does the maximum fit."""
    place, room = config.agent.directory, config.agent.buffer_mib * 2**20
    if place is None:
        return Finding("rounds are kept in memory, and are lost when the agent ends", True)
    seat = place if place.is_dir() else place.parent
    if not os.access(seat, os.W_OK | os.X_OK) or (place.exists() and not place.is_dir()):
        mend = (
            f"create it for user {os.geteuid()} on a file system that can be written, or set another agent.buffer_dir"
        )
        return Finding(f"rounds are kept in {place}, which cannot be written", False, mend)
    size = sum(file.stat().st_size for file in place.glob("*.ring*"))
    free = os.statvfs(seat)
    left = free.f_bavail * free.f_frsize
    mend = f"{left // 2**20} MiB are free there; make room, or set a lower agent.buffer_mib"
    what = f"rounds are kept in {place}, {size / 2**20:.1f} of {room // 2**20} MiB"
    return Finding(what, size + left >= room, mend)


def _icmp() -> Iterator[Finding]:
    try:
        engine = EchoEngine()
    except NoPermissionError as error:
        yield Finding(f"ICMP as user {os.geteuid()} (ping groups: {_read(_PING_GROUPS)})", False, str(error))
        return
    try:
        yield Finding(f"ICMP by {engine.mode} sockets", True)
        yield from _families(engine)
        yield _stamps(engine)
        yield _buffer(engine)
    finally:
        engine.close()


def _families(engine: EchoEngine) -> Iterator[Finding]:
    for version in (4, 6):
        mend = f"targets of that family will not be sent; switch IPv{version} on in this kernel if you need it"
        yield Finding(f"IPv{version}", version in engine.families, mend)


def _stamps(engine: EchoEngine) -> Finding:
    plan = Plan(addresses=["127.0.0.1"] * 5, window_s=0.0, timeout_s=1.0)
    probed = engine.run_round(plan)
    if min(probed.samples) < 0:
        return Finding("pinging 127.0.0.1", False, "this host does not answer itself; see what its firewall drops")
    stamped = probed.health.unstamped == 0
    mend = "this kernel does not stamp packets, so a busy host will blur the times; use a kernel with software stamps"
    return Finding(f"kernel time stamps, 127.0.0.1 answers in {min(probed.samples)} us", stamped, mend)


def _buffer(engine: EchoEngine) -> Finding:
    room = engine.room
    mend = (
        f"room for {room} packets; with thousands of targets raise it (now {_read(_RMEM_MAX)} bytes): "
        "`sysctl -w net.core.rmem_max=16777216`, or run with CAP_NET_ADMIN"
    )
    return Finding(f"receive buffer for {room} packets", room >= _ROOM_WANTED, mend)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip().replace("\t", " ")
    except OSError:
        return "unknown"


def run(path: Path, say: Callable[[str], object]) -> bool:
    """Say every finding; True if all is well."""
    well = True
    for finding in findings(path):
        say(finding.line())
        well = well and finding.well
    return well
