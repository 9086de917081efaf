"""Cases 57 to 59 of the abuse list: nobody aims the fleet, neither a careless operator nor a hostile server.

The agent is the real program, before a server that says whatever the test wants; nothing leaves this host, for what is
not loopback is refused. Forged signatures (the rest of case 59) are in the tests of the sealed exchange.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pingmon import config as settings
from pingmon.services.bundle import Services, open_services
from pingmon.services.enrolment import new_uid
from pingmon.services.errors import Conflict
from pingmon.store.models import Agent
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Outcome, Report, State
from tests.agent.pretend import AGENT_ID, APPROVED, AgentProcess, targets
from tests.support.processes import running_server
from tests.support.stage import Stage
from tests.web.site import Site, open_site

Json = dict[str, Any]
SENTENCES = {
    "224.0.0.1": "not the address of one host",
    "ff02::1": "not the address of one host",
    "255.255.255.255": "not the address of one host",
    "0.0.0.0": "not the address of one host",
    "127.0.0.1": "is a loopback address",
    "::1": "is a loopback address",
    "169.254.169.254": "is a link-local address",
    "::ffff:224.0.0.1": "not the address of one host",
    "::ffff:127.0.0.1": "is a loopback address",
    "2130706433": "is no address",
    "0x7f.1": "is no address",
    "localhost": "is a loopback address",
}
CODES = {
    "224.0.0.1": "E_POLICY_MULTICAST",
    "ff02::1": "E_POLICY_MULTICAST",
    "255.255.255.255": "E_POLICY_NOT_A_HOST",
    "0.0.0.0": "E_POLICY_NOT_A_HOST",
    "127.0.0.1": "E_POLICY_LOOPBACK",
    "::1": "E_POLICY_LOOPBACK",
    "169.254.169.254": "E_POLICY_LINK_LOCAL",
    "::ffff:224.0.0.1": "E_POLICY_MULTICAST",
    "::ffff:127.0.0.1": "E_POLICY_LOOPBACK",
}
# What the system's resolver makes addresses of: the agent cannot tell them from names before it asks.
NAMES = {"2130706433": "E_POLICY_LOOPBACK", "0x7f.1": "E_POLICY_LOOPBACK", "localhost": "E_POLICY_LOOPBACK"}
QUICK_NAMES = """
import sys
from pingmon_agent import resolve
resolve.REFRESH_S = 0.3
from pingmon_agent.__main__ import main
sys.exit(main())
"""
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace and a policy file of root's")


class Hostile(Stage):
    """It approves whoever comes, and then says what the test wants."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server.tell("set", handshake_answer=APPROVED)

    def agent(self, *flags: str, **more: Any) -> AgentProcess:
        """One that has come."""
        made = super().agent(*flags, **more)
        self.server.wait("handshake")
        return made

    def push(self, body: Json) -> Json:
        """Send a set; its acknowledgement."""
        self.server.tell("targets", body=body)
        answer: Json = self.server.wait("targets_ack")["data"][0]
        return answer

    def report(self, revision: int, refused: bool | None = None) -> Report:
        """The next report of this revision; `refused`: with or without news about names."""

        def wanted(seen: Json) -> bool:
            news = "refused" in seen["data"]
            return seen["data"]["rounds"][-1]["rev"] == revision and (refused is None or news is refused)

        return codec.decode_report(self.server.wait("report", where=wanted)["data"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Hostile]:
    with Hostile(tmp_path) as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = open_site(tmp_path)
    yield opened
    opened.application.services.close()


def enlist(services: Services, count: int) -> None:
    """Approved agents, without their handshakes."""
    with services.registry.change() as tx:
        for number in range(count):
            address = f"10.0.{number >> 8}.{number & 255}"
            now = services.clock.wall_ms()
            tx.add_agent(Agent(uid=new_uid(now), hostname=f"probe-{number}", state=State.APPROVED, ip_address=address,
                               observed_ip=address, version="1", legacy=False, mesh=False, registered_ms=now,
                               seen_ms=now, decided_ms=now))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("address", SENTENCES)
def test_case_57_what_is_no_host_is_refused_at_save(site: Site, address: str) -> None:
    """By the API, which page and paste use too: 422 and the reason, and nothing is saved."""
    operator = site.visitor("operator")
    row = {"name": "x", "address": address}

    for method, body in (("POST", row), ("PUT", {"targets": [row]})):
        answer = operator.api(method, "/api/v1/targets", body, 422)
        assert SENTENCES[address] in answer["message"]
    assert operator.api("GET", "/api/v1/targets") == {"targets": []}


@pytest.mark.e2e
def test_case_57_an_agent_refuses_what_a_hostile_server_sends(stage: Hostile) -> None:
    """Addresses in the acknowledgement, names with the first report, and not one of them is probed."""
    stage.agent(probe_allow_loopback="false")
    addresses = [*CODES, *NAMES]
    answer = stage.push(targets(*addresses))
    report = stage.report(1, refused=True)

    assert answer["ok"] is True
    assert {addresses[i - 1]: code for i, code in answer["refused"]} == CODES
    assert report.refused is not None
    assert {addresses[i - 1]: code for i, code in report.refused} == NAMES
    assert set(report.rounds[-1].samples) == {Outcome.REFUSED_BY_POLICY}


@pytest.mark.e2e
def test_case_57_the_broadcast_address_of_the_agents_own_network(stage: Hostile) -> None:
    """Which no server can know; the rest of the list is measured."""
    stage.agent()
    answer = stage.push(targets("127.255.255.255", "127.0.0.1"))

    assert answer["refused"] == [[1, "E_POLICY_BROADCAST"]]
    refused, measured = stage.report(1).rounds[-1].samples
    assert refused == Outcome.REFUSED_BY_POLICY
    assert measured >= 0


@root
@pytest.mark.e2e
def test_case_57_a_name_that_moves_after_the_check(stage: Hostile) -> None:
    """It is measured, then refused from the resolution on that moved it, told once, and measured again later."""
    hosts = stage.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost moving.test\n")
    (stage.folder / "quick.py").write_text(QUICK_NAMES)
    mount = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
    agent = stage.agent(prefix=mount, program=(str(stage.folder / "quick.py"),))
    stage.push(targets("moving.test"))
    before = stage.report(1, refused=False).rounds[-1].samples[0]
    hosts.write_text("127.0.0.1 localhost\n169.254.169.254 moving.test\n")
    told = stage.report(1, refused=True)
    meanwhile = stage.report(1, refused=False)
    hosts.write_text("127.0.0.1 localhost moving.test\n")
    back = stage.report(1, refused=True)

    assert before >= 0
    assert told.refused == ((1, "E_POLICY_LINK_LOCAL"),)
    assert told.rounds[-1].samples[0] == meanwhile.rounds[-1].samples[0] == Outcome.REFUSED_BY_POLICY
    assert back.refused == ()
    assert back.rounds[-1].samples[0] >= 0
    assert "E_POLICY_LINK_LOCAL" in agent.wait_log("what this name stands for is not pinged from here")


@pytest.mark.slow
def test_case_58_500_agents_on_one_stranger(site: Site) -> None:
    """Refused with the arithmetic; so are a millisecond, 65,000 bytes and 100,000 targets."""
    enlist(site.application.services, 500)
    operator = site.visitor("operator")

    def refusal(probe: Json, status: int = 422) -> str:
        row = {"name": "victim", "address": "8.8.8.8", "probe": probe}
        return str(operator.api("POST", "/api/v1/targets", row, status)["message"])

    assert refusal({}, 409).startswith(
        "victim (8.8.8.8) is outside your own networks and would get too much: 500 agents > 20 (targets.foreign_agents"
    )
    assert refusal({"interval_s": 0.001}) == "interval_s = 0.001 is wrong: it must be 0 (every round) or at least 1"
    assert refusal({"size": 65_000}) == "size must lie between 56 and 1400"
    many = [(f"t{n}", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(100_000)]
    with pytest.raises(Conflict, match="these are 100000 probes in a round, more than the 12000 that one agent can"):
        site.application.services.registry.put_targets(many, "test")
    assert operator.api("GET", "/api/v1/targets") == {"targets": []}


@pytest.mark.e2e
def test_case_58_the_owner_marks_a_network_and_the_limits_are_raised(tmp_path: Path) -> None:
    """On a real server by the command line; once the mark is gone again, the server does not start, and says why."""
    with running_server(tmp_path, targets="foreign_agents = 0\n") as server:
        services = open_services(settings.load(server.config, {}))
        enlist(services, 1)
        services.close()
        refused = server.cli("targets", "add", "mine", "8.8.8.8", check=False)
        server.stop()
        config = server.config.read_text()
        server.config.write_text(config.replace("[targets]\n", '[targets]\nowned_networks = "8.8.8.0/24"\n'))
        server.start()
        server.cli("targets", "add", "mine", "8.8.8.8")
        server.stop()
        server.config.write_text(config)
        stopped = server.cli("serve", check=False)
        server.cli("targets", "remove", "mine")
        server.start()

    sentence = (
        "pingmon: mine (8.8.8.8) is outside your own networks and would get too much: 1 agents > 0 "
        "(targets.foreign_agents in server.toml); if it is yours, add it to targets.owned_networks in server.toml, "
        "else take it off the list"
    )
    assert (refused.returncode, refused.stderr) == (1, f"{sentence}\n")
    assert stopped.returncode == 78
    assert f"{sentence}; the server does not start before" in stopped.stderr


@root
@pytest.mark.e2e
def test_case_58_an_agent_keeps_to_its_own_budget(stage: Hostile) -> None:
    """Whatever the server asks for: the list is pinged as far as the budget goes."""
    policy = stage.folder / "own.toml"
    policy.write_text("max_targets = 2\nmax_size = 100\nmin_interval_s = 1\n")
    stage.agent(probe_policy_file=str(policy))
    too_quick = stage.push(targets("127.0.0.1", revision=2, interval_s=0.1))
    body = targets("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", revision=3, interval_s=1.0)
    body["targets"][0]["size"] = 1400
    answer = stage.push(body)

    assert too_quick["refused"] == [[1, "E_POLICY_INTERVAL"]]
    assert answer["refused"] == [[1, "E_POLICY_SIZE"], [4, "E_POLICY_TARGETS"]]
    refused, first, second, third = stage.report(3).rounds[-1].samples
    assert refused == third == Outcome.REFUSED_BY_POLICY
    assert first >= 0
    assert second >= 0


def many(count: int, text: int = 1) -> list[Json]:
    return [{"id": n, "name": "x" * text, "address": "127.0.0.9"} for n in range(count)]


@pytest.mark.e2e
def test_case_59_a_list_that_is_wrong_changes_nothing(stage: Hostile) -> None:
    """Forged, of another agent, older, 2 MB of targets, of one name or of nonsense: the set stays, the agent lives."""
    agent = stage.agent()
    good = targets("127.0.0.1", revision=7)
    stage.push(good)
    stage.report(7)
    wrong: list[tuple[object, str]] = [
        (good | {"agent_id": AGENT_ID[:-1] + "9", "revision": 8}, "E_TARGET"),
        (good | {"revision": 6}, "E_TARGET"),
        (good | {"revision": 8, "targets": many(30_000, 20)}, "E_BATCH"),
        (good | {"revision": 8, "targets": many(1, 2_000_000)}, "E_TARGET"),
        (good | {"revision": 8, "targets": "x" * 2_000_000}, "E_MALFORMED"),
        (good | {"revision": 8, "interval_s": 0.001}, "E_MALFORMED"),
        (good | {"revision": -1}, "E_MALFORMED"),
        (good | {"revision": 8, "sig": "A" * 86}, "E_SIGNATURE"),
        ({"unknown": True}, "E_SIGNATURE"),
        (None, "E_SIGNATURE"),
    ]
    for body, code in wrong:
        stage.server.tell("targets", body=body)
        answer = stage.server.wait("targets_ack")["data"][0]
        assert (answer["ok"], answer["code"], answer["revision"]) == (False, code, 7)
    # A field that a newer server adds is none of our business: the set is taken, and means what it says.
    newer = targets("127.0.0.1", revision=9) | {"shell": "reboot"}
    newer["targets"][0] |= {"command": "reboot"}

    assert stage.report(7).rounds[-1].samples[0] >= 0
    assert stage.push(newer) == {"ok": True, "revision": 9, "refused": []}
    assert stage.report(9).rounds[-1].samples[0] >= 0
    assert agent.process.poll() is None
    assert "target set refused" in agent.log.read_text()
