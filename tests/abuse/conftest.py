"""A real server for the abuse cases, and services alone for those that need a clock or hundreds of agents."""

from __future__ import annotations

import resource
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pingmon.config import build
from pingmon.services.bundle import Services
from pingmon.services.challenge import Visit
from pingmon.services.enrolment import Greeting
from tests.server.conftest import FakeClock
from tests.support.applicant import Applicant, Caller
from tests.support.fresh import fresh_services
from tests.support.processes import Server, running_server

from .victim import Victim, make_victim

LEAF = b"what stands for a certificate"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with one target."""
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.admin("targets", "add", "here", "127.0.0.1")
        running.session()
        yield running


@pytest.fixture(scope="module")
def pin(server: Server) -> str:
    """Of that server's identity."""
    return server.passphrase("for its pin").split("-")[3]


Call = Callable[..., Caller]


@pytest.fixture
def call(server: Server, pin: str) -> Iterator[Call]:
    """Makes connections to it, and closes them."""
    made: list[Caller] = []

    def make(hostname: str = "probe-1", **who: object) -> Caller:
        made.append(Caller(server, pin, hostname, **who))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for caller in made:
        caller.__exit__()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def services(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    """The server's decisions without a network."""
    certificate = tmp_path / "server.pem"
    certificate.write_text(ssl.DER_cert_to_PEM_cert(LEAF))
    settings = {"server": {"data_dir": str(tmp_path / "data")}, "tls": {"certificate": str(certificate)}}
    opened = fresh_services(build(settings, {}), clock)
    yield opened
    opened.close()


def applicant(services: Services, hostname: str = "probe-1", **who: object) -> Applicant:
    """An agent that saw the right certificate."""
    return Applicant(hostname, services.enrolment.pin, LEAF, **who)  # type: ignore[arg-type]


def challenged(services: Services, who: Applicant, visit: Visit) -> dict[str, object]:
    """M1 and its answer."""
    body = services.enrolment.hear(visit, who.hello())
    assert isinstance(body, dict)
    return body


def enrolled(services: Services, who: Applicant, secret: str, observed_ip: str = "127.0.0.1", **ext: object) -> int:
    """The number of an agent that came with a passphrase; raises WireError where it is refused."""
    visit = Visit(observed_ip)
    return _settled(services, visit, who.sealed(challenged(services, who, visit), secret, **ext))


def back(services: Services, who: Applicant, observed_ip: str = "127.0.0.1", **ext: object) -> int:
    """The number of an agent that came with its key."""
    visit = Visit(observed_ip)
    return _settled(services, visit, who.login(challenged(services, who, visit), **ext))


def _settled(services: Services, visit: Visit, payload: dict[str, object]) -> int:
    greeting = services.enrolment.hear(visit, payload)
    assert isinstance(greeting, Greeting)
    services.enrolment.arrive(greeting, visit.observed_ip)
    return greeting.agent_no


def secret_of(services: Services, **changes: object) -> str:
    """A passphrase for the sealed exchange."""
    options = {"legacy": False, "max_uses": 10, "ttl_s": 3600, "actor": "test"} | changes
    return services.enrolment.create_passphrase("tests", **options)[1]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Attacked by all tests of the module; at the end it has logged no traceback and no secret, and still serves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running_server(tmp_path_factory.mktemp("victim")) as server:
        made = make_victim(server)
        yield made
        assert server.visitor().is_up("/-/ready")
        assert made.metric("pingmon_server_handler_faults_total") == 0
        assert "Traceback" not in made.log()
        assert made.honest not in made.log()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
