"""The real application on a real SQLite directory, and visitors that sign in as people do, by the form."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from pingmon.adapters.web.credentials import hash_password
from pingmon.app import Application, create_app
from pingmon.config import Config, ServerSection, TlsSection, build
from pingmon_agent.wire.contract import Handshake
from tests.abuse.conftest import LEAF, enrolled
from tests.support.applicant import Applicant
from tests.support.fresh import contents, fresh_services, lay

BASE = "https://127.0.0.1:8443"
PASSWORD = "correct horse battery 7"
ROLES = ("viewer", "operator", "admin")


@cache
def _hashed() -> str:
    """The hash of PASSWORD: made once, it takes long by design."""
    return hash_password(PASSWORD)


class MovableClock:
    """Wall time that tests move."""

    def __init__(self) -> None:
        self.now_ms = 1_795_000_000_000

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return self.now_ms

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return self.now_ms / 1000


class Visitor:
    """One browser without a screen."""

    def __init__(self, application: Application, address: str = "127.0.0.1") -> None:
        self._client = application.flask.test_client()
        self._address = address
        self._csrf = ""

    def request(self, method: str, path: str, *, csrf: bool = True, **options: Any) -> TestResponse:
        """Any request; unsafe ones carry the token of the last page seen, unless `csrf` is off."""
        headers: dict[str, str] = dict(options.pop("headers", {}))
        if csrf and method not in ("GET", "HEAD") and self._csrf:
            headers.setdefault("X-XSRF-Token", self._csrf)
        response = self._client.open(
            path, method=method, buffered=True, base_url=options.pop("base_url", BASE), headers=headers,
            environ_base={"REMOTE_ADDR": self._address}, **options,
        )  # fmt: skip
        found = re.search(r'name="csrf-token" content="([^"]+)"', response.text) if response.is_json is False else None
        self._csrf = found.group(1) if found else self._csrf
        return response

    def get(self, path: str, **options: Any) -> TestResponse:
        """GET."""
        return self.request("GET", path, **options)

    def api(self, method: str, path: str, body: object = None, status: int | tuple[int, ...] = 200) -> Any:
        """The JSON of an API call that must end with `status`."""
        response = self.request(method, path, json=body) if body is not None else self.request(method, path)
        expected = (status,) if isinstance(status, int) else status
        assert response.status_code in expected, f"{method} {path}: {response.status} {response.text[:300]}"
        return response.get_json(silent=True)

    def sign_in(self, email: str, password: str = PASSWORD, path: str = "/login") -> TestResponse:
        """Fill in the form; the answer is not followed."""
        self.get(path)
        answer = self.request("POST", path, data={"email": email, "password": password})
        self.get("/")
        return answer

    def cookies(self, response: TestResponse) -> list[str]:
        """The cookies a response sets."""
        return response.headers.getlist("Set-Cookie")


@dataclass
class Site:
    """The application, its clock, and one user per role: viewer@example.net and so on."""

    application: Application
    clock: MovableClock

    def visitor(self, role: str | None = None, address: str = "127.0.0.1") -> Visitor:
        """Somebody who is signed in with this role, or nobody."""
        visitor = Visitor(self.application, address)
        if role:
            assert visitor.sign_in(f"{role}@example.net").status_code == 302
        return visitor

    def add_user(self, email: str, roles: tuple[str, ...]) -> None:
        """One more account."""
        made = self.application.services.accounts.create_user(email, _hashed(), roles, "test", self.clock.now_ms)
        assert made is not None

    def link(self) -> str:
        """The path of a fresh one-time link."""
        return "/welcome/" + self.application.services.accounts.create_link(self.clock.now_ms, "test")

    def passphrase(self, label: str = "site A") -> str:
        """The clear text of a plain passphrase."""
        _, clear = self.application.services.enrolment.create_passphrase(
            label, legacy=True, max_uses=1000, ttl_s=3600, actor="test"
        )
        return clear

    def pending_agent(self, hostname: str, address: str = "192.0.2.17", passphrase: str | None = None) -> str:
        """The id of an agent that shook hands and waits."""
        services = self.application.services
        hello = Handshake(
            passphrase=passphrase or self.passphrase(), hostname=hostname, ip_address=address, version="0.1.0"
        )
        greeting = services.enrolment.greet(hello, address)
        return services.registry.snapshot.agents[greeting.agent_no].id

    def keyed_agent(self, hostname: str, address: str = "192.0.2.17", **who: Any) -> str:
        """The id of an agent that showed its key, and waits."""
        services = self.application.services
        _, clear = services.enrolment.create_passphrase(
            f"for {hostname}", legacy=False, max_uses=1, ttl_s=3600, actor="test"
        )
        applicant = Applicant(hostname, services.enrolment.pin, LEAF, address, **who)
        number = enrolled(services, applicant, clear, address)
        return services.registry.snapshot.agents[number].id


@cache
def _peopled() -> Mapping[str, bytes]:
    """The databases of a site when its users have been made."""
    clock = MovableClock()
    with tempfile.TemporaryDirectory() as place:
        services = fresh_services(build({"server": {"data_dir": place}}, {}), clock)
        for role in ROLES:
            services.accounts.create_user(f"{role}@example.net", _hashed(), (role,), "test", clock.now_ms)
        services.close()
        return contents(Path(place))


def open_site(directory: Path, settings: Mapping[str, Any] | None = None) -> Site:
    """A site with an empty directory but for the three users."""
    clock = MovableClock()
    lay(directory, _peopled())
    certificate = directory / "shown.pem"
    certificate.write_text(ssl.DER_cert_to_PEM_cert(LEAF))
    config = Config(
        server=ServerSection(data_dir=str(directory), **(settings or {})), tls=TlsSection(certificate=str(certificate))
    )
    return Site(create_app(config, clock), clock)
