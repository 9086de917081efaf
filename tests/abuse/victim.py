"""A server under attack, with an honest agent approved; attackers come from other addresses of loopback."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Server, wait_for

from .bystander import Seen, bystander
from .wire import Client, hello


@dataclass
class Victim:
    """The server under attack, and what an attacker may have got hold of."""

    server: Server
    honest: str

    def client(self, source: str = "127.0.0.1", **more: bool) -> Client:
        """A fresh connection, TLS done."""
        return Client(self.server.port, self.server.ca_file, source, **more)

    def agent(self, hostname: str, state: str = "approved", **more: bool) -> Client:
        """A connection that has shaken hands as a new agent, which somebody has decided about."""
        secret = self.server.legacy_passphrase(hostname)
        client = self.client(**more).opened()
        assert client.ask("handshake", hello(secret, hostname))["state"] == "pending"
        if state in ("approved", "hold"):
            self.server.admin("agents", "approve", hostname)
            assert client.event("handshake")["state"] == "approved"
            client.event("update_targets")
        if state == "hold":
            self.server.admin("agents", "hold", hostname)
            assert client.event("handshake")["state"] == "hold"
        return client

    def bystander(self) -> AbstractContextManager[Seen]:
        """See bystander.py."""
        return bystander(self.server, self.honest)

    @property
    def pid(self) -> int:
        assert self.server.child is not None
        return int(self.server.child.process.pid)

    def rss_mib(self) -> float:
        """Memory of the server program."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self) -> int:
        """Open files and sockets of the server program."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def back_to(self, descriptors: int, slack: int = 6) -> None:
        """Once the attacker has left, his sockets go too."""
        wait_for(lambda: self.descriptors() <= descriptors + slack, "the attacker's sockets to go", deadline_s=30)

    def log(self) -> str:
        """Everything the server has logged."""
        return (self.server.directory / "server.log").read_text()

    def metric(self, name: str) -> float:
        """One number of /metrics."""
        page = self.server.session().request("/metrics")[1]
        return float(next(line for line in page.splitlines() if line.startswith(name + " ")).split()[1])


def call(server: Server, method: str, path: str, body: object = None) -> None:
    """A change by the API, as an admin's page asks for it."""
    session = server.session()
    token = re.search(r'name="csrf-token" content="([^"]+)"', session.request("/targets")[1])
    assert token
    headers = {"Content_Type": "application/json", "X_XSRF_Token": token.group(1), "Referer": server.url}
    status, text = session.request(path, json.dumps(body or {}).encode(), method, **headers)
    assert status in (200, 204), text[:300]


def put(server: Server, targets: list[dict[str, str]]) -> None:
    """Make this the whole list of targets."""
    call(server, "PUT", "/api/v1/targets", {"targets": targets})


def make_victim(server: Server) -> Victim:
    """With a target and an honest agent that is approved."""
    server.admin("targets", "add", "here", "127.0.0.1")
    victim = Victim(server, server.legacy_passphrase("bystander", "--uses", "1"))
    with victim.client().opened() as honest:
        assert honest.ask("handshake", hello(victim.honest, "bystander"))["state"] == "pending"
        server.admin("agents", "approve", "bystander")
        honest.event("update_targets")
    server.session()
    return victim
