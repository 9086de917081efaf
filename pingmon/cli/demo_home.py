"""The directory a demo lives in: private CA, certificate, both configurations, the agent's passphrase, logs.

Everything in it is made at the first start and kept for the next, but the configurations: they follow the command line.
Must not know: processes, the store.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pingmon.cli.pki_authority import create_authority, issue_leaf
from pingmon.cli.plain import CommandError

HOSTNAME = "demo"
LOOPBACK = ["dns:localhost", "ip:127.0.0.1", "ip:::1"]
INTERVAL_S = 5


@dataclass(frozen=True)
class Home:
    """Paths under `directory`; `port` is the server's."""

    directory: Path
    port: int

    @property
    def server_config(self) -> Path:
        return self.directory / "server.toml"

    @property
    def agent_config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def anchor(self) -> Path:
        return self.directory / "ca" / "ca.pem"

    @property
    def passphrase(self) -> Path:
        return self.directory / "passphrase"

    @property
    def state(self) -> Path:
        """Where the agent keeps who it is."""
        return self.directory / "agent-state"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def prepare(self) -> int:
        """Take the directory for this process and bring certificates and configurations up to date.

        Returns the descriptor that holds the lock. Raises CommandError.
        """
        lock = self._lock()
        if not self.anchor.exists():
            create_authority(self.directory / "ca", "pingmon demo CA")
        certificate, key = self.directory / "server.pem", self.directory / "server.key"
        issue_leaf(self.directory / "ca", "localhost", LOOPBACK, out_cert=certificate, out_key=key)
        self.server_config.write_text(self._server_toml())
        self.agent_config.write_text(self._agent_toml())
        return lock

    def save_passphrase(self, clear: str) -> None:
        """Keep the agent's passphrase, readable by this user alone."""
        self.passphrase.unlink(missing_ok=True)
        descriptor = os.open(self.passphrase, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(clear + "\n")

    def _lock(self) -> int:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"a demo is running in {self.directory} already: stop it, or give this one another --dir and --port"
            ) from None
        except OSError as error:
            raise CommandError(
                f"cannot use {self.directory} ({error.strerror}): give --dir a directory that you may write to"
            ) from None
        return lock

    def _server_toml(self) -> str:
        home = self.directory
        return (
            f'[server]\nlisten = "127.0.0.1"\nport = {self.port}\n'
            f'public_url = "{self.url}"\ndata_dir = "{home / "data"}"\n'
            f'[tls]\ncertificate = "{home / "server.pem"}"\nkey = "{home / "server.key"}"\n'
            f"[probing]\ninterval_s = {INTERVAL_S}\nmesh = false\n"
            "[targets]\nallow_loopback = true\n"
        )

    def _agent_toml(self) -> str:
        return (
            f'[server]\nurl = "wss://127.0.0.1:{self.port}"\nca_file = "{self.anchor}"\n'
            f'passphrase_file = "{self.passphrase}"\n'
            f'[agent]\nhostname = "{HOSTNAME}"\nip_address = "127.0.0.1"\nbuffer = "memory"\n'
            f'state_dir = "{self.state}"\n'
            "[probe]\nallow_loopback = true\n"
            '[metrics]\nlisten = ""\n'
        )


def check_host(port: int) -> None:
    """Raises CommandError where this host, this user or this port cannot carry a demo."""
    if sys.platform != "linux":
        raise CommandError(f"pingmon measures on Linux only, and this is {sys.platform}: run it on a Linux host")
    if not _may_ping():
        raise CommandError(
            "this user may not send pings: run `sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'` once, "
            "then the same command again"
        )
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)  # not error.strerror: create_server puts the address into that
        raise CommandError(
            f"port {port} of 127.0.0.1 cannot be had ({why}): stop what holds it (`ss -ltnp` shows it), "
            f"or choose another, as in `make run PORT={port + 1}` or `pingmon demo --port {port + 1}`"
        ) from None


def has_ipv6() -> bool:
    """Whether ::1 is there to be pinged."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def _may_ping() -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        except PermissionError:
            continue
        return True
    return False
