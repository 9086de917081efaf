"""The rules of [targets]: what is never a target, and how much of the fleet one address or one agent may carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pingmon.config import ConfigError, build
from pingmon.services.bundle import Services
from pingmon.services.errors import Conflict, Invalid
from pingmon_agent.wire.contract import Probe, State

from .conftest import Open, hello, passphrase

pytestmark = pytest.mark.slow
THEIRS, OURS = "8.8.8.8", "9.9.9.0/24"  # never pinged: these tests send nothing


def register(services: Services, count: int, ip: str = "10.0.0.{}", observed: str | None = None) -> list[str]:
    """Ids of agents that wait for approval."""
    known, made = len(services.registry.agents()), []
    for number in range(known + 1, known + count + 1):
        if not len(made) % 20:  # no more may wait by one passphrase
            secret = passphrase(services, max_uses=20)
        claimed = ip.format(number)
        no = services.enrolment.greet(hello(secret, f"probe-{number}", claimed), observed or claimed).agent_no
        made.append(services.registry.snapshot.agents[no].id)
    return made


def approve(services: Services, count: int, **more: Any) -> None:
    for ref in register(services, count, **more):
        services.registry.approve(ref, "test")


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(Conflict) as caught:
        action()
    return caught.value.message


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1", "is a loopback address"),
        ("::1", "is a loopback address"),
        ("::ffff:127.0.0.1", "is a loopback address"),
        ("64:ff9b::7f00:1", "is a loopback address"),
        ("localhost", "is a loopback address"),
        ("db.localhost.", "is a loopback address"),
        ("169.254.169.254", "is a link-local address"),
        ("fe80::1", "is a link-local address"),
        ("::ffff:224.0.0.1", "is not the address of one host"),
        ("0.1.2.3", "is not the address of one host"),
        ("127.1", "is no address"),
        ("0177.0.0.1", "is no address"),
        ("0x7f.0x1", "is no address"),
        ("0X7F000001", "is no address"),
    ],
)
def test_what_is_never_a_target(services: Services, address: str, sentence: str) -> None:
    """Refused on every way in, and nothing is saved."""
    registry = services.registry
    there = registry.add_target("there", "192.0.2.1", "test")
    ways = (
        lambda: registry.add_target("x", address, "test"),
        lambda: registry.put_targets([("x", address)], "test"),
        lambda: registry.change_target(str(there.id), "test", address=address),
    )
    for way in ways:
        with pytest.raises(Invalid) as caught:
            way()
        assert caught.value.message.startswith(f"{address!r} {sentence}")
    assert [t.address for t in registry.targets()] == ["192.0.2.1"]


def test_loopback_is_for_demos(opened: Open) -> None:
    """Where the setting says so; link-local stays refused."""
    with opened(allow_loopback=True) as services:
        for number, address in enumerate(("127.0.0.1", "::1", "localhost")):
            services.registry.add_target(f"t{number}", address, "test")
        with pytest.raises(Invalid):
            services.registry.add_target("x", "169.254.169.254", "test")


def test_a_target_outside_gets_ten_packets_a_second_from_all_agents_together(opened: Open) -> None:
    """Ten agents at 1 s are allowed; an eleventh, a second probe and another name for the same address are not."""
    with opened(interval_s=1.0) as services:
        registry = services.registry
        approve(services, 10)
        target = registry.add_target("dns", THEIRS, "test")
        [late] = register(services, 1)

        assert refusal(lambda: registry.approve(late, "test")) == (
            "dns (8.8.8.8) is outside your own networks and would get too much: 11 agents x 1 packets / 1 s = "
            "11 packets/s > 10 (targets.foreign_packets_per_s in server.toml); if it is yours, add it to "
            "targets.owned_networks in server.toml, else probe it every 2 s or more seldom (interval_s)"
        )
        twice = refusal(lambda: registry.change_target(str(target.id), "test", probe=Probe(count=2)))
        assert "10 agents x 2 packets / 1 s = 20 packets/s > 10" in twice
        again = refusal(lambda: registry.add_target("same", "::ffff:8.8.8.8", "test"))
        assert "10 agents x (1 packets / 1 s + 1 packets / 1 s) = 20 packets/s > 10" in again
        hidden = refusal(lambda: registry.add_target("same", "64:ff9b::808:808", "test"))
        assert "= 20 packets/s > 10" in hidden
        whole = [("dns", THEIRS), ("same", "::ffff:8.8.8.8")]
        assert "= 20 packets/s > 10" in refusal(lambda: registry.put_targets(whole, "test"))

        assert [t.name for t in registry.targets()] == ["dns"]
        assert registry.agent(late).state is State.PENDING
        registry.change_target(str(target.id), "test", probe=Probe(interval_s=2))
        registry.approve(late, "test")


def test_a_target_outside_is_pinged_by_twenty_agents(opened: Open) -> None:
    """However seldom."""
    with opened(interval_s=60.0) as services:
        approve(services, 20)
        services.registry.add_target("dns", THEIRS, "test", Probe(interval_s=600))
        [late] = register(services, 1)

        sentence = refusal(lambda: services.registry.approve(late, "test"))
        assert "would get too much: 21 agents > 20 (targets.foreign_agents in server.toml)" in sentence
        assert sentence.endswith("else take it off the list")


def test_your_own_are_not_limited(opened: Open) -> None:
    """Private addresses, listed networks and domains, and names that public DNS cannot have: the product's own use."""
    with opened(interval_s=1.0, owned_networks=OURS, owned_domains="corp.net, Example.ORG.") as services:
        approve(services, 25)
        names = ["10.1.1.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1", "9.9.9.9", "db.corp.net", "corp.net",
                 "www.example.org", "gateway", "nas.lan", "printer.home.arpa"]  # fmt: skip
        services.registry.put_targets([(name, name) for name in names], "test")

        for other in ("9.9.8.9", "2600::1", "evilcorp.net", "example.com"):
            sentence = refusal(lambda other=other: services.registry.add_target("x", other, "test"))
            assert ("owned_domains" if other[0] in "e" else "owned_networks") in sentence


def test_the_documented_use_fits(opened: Open) -> None:
    """1,000 targets of a company each second, 10,000 each 5 s, and 12,000 are what an agent may be asked for."""
    with opened() as services:
        services.registry.put_targets([(f"t{n}", f"10.{n >> 8}.{n & 255}.1") for n in range(10_000)], "test")
    with opened(interval_s=1.0, agent_packets_per_s=1000.0, agent_targets=1000) as services:
        listed = [(f"t{n}", f"10.{n >> 8}.{n & 255}.1") for n in range(1000)]
        services.registry.put_targets(listed, "test")

        sentence = refusal(lambda: services.registry.add_target("one more", "10.9.9.9", "test"))
        assert sentence == (
            "each agent would have 1001 targets > 1000 (targets.agent_targets in server.toml); remove targets or "
            "raise it"
        )
        sentence = refusal(lambda: services.registry.put_targets([(*listed[0], Probe(count=2)), *listed[1:]], "test"))
        assert sentence.startswith(
            "each agent would send 1001 packets / 1 s = 1001 packets/s > 1000 (targets.agent_pack"
        )


def test_the_mesh_counts(opened: Open) -> None:
    """Approving an agent makes it a target of all others: that load is judged too."""
    with opened(mesh=True, agent_targets=3) as services:
        approve(services, 3)
        [late] = register(services, 1)

        assert "each agent would have 4 targets > 3" in refusal(lambda: services.registry.approve(late, "test"))
        assert services.registry.agent(late).state is State.PENDING


def test_what_is_too_much_already_can_be_made_less(opened: Open) -> None:
    """After a limit was lowered the server names it at its start; taking away still works, adding does not."""
    with opened(interval_s=1.0, foreign_packets_per_s=100.0, foreign_agents=100) as services:
        approve(services, 21)
        services.registry.add_target("dns", THEIRS, "test")
        services.registry.check_load()
    with opened(interval_s=1.0) as services:
        registry = services.registry
        assert "21 agents > 20" in refusal(registry.check_load)
        registry.add_target("fine", "10.0.0.1", "test")
        assert "21 agents > 20" in refusal(lambda: registry.add_target("again", "::ffff:8.8.8.8", "test"))
        registry.reject("probe-1", "test")
        registry.remove_target("dns", "test")
        registry.check_load()


def test_a_shorter_interval_is_judged_at_the_start(opened: Open) -> None:
    """Ten agents at 5 s are 2 packets a second; the same at 1 s with six probes are 60."""
    with opened(interval_s=5.0) as services:
        approve(services, 10)
        services.registry.add_target("dns", THEIRS, "test", Probe(count=5))
        services.registry.check_load()
    with opened(interval_s=1.0) as services:
        assert "10 agents x 5 packets / 1 s = 50 packets/s > 10" in refusal(services.registry.check_load)


@pytest.mark.parametrize(
    ("claimed", "observed", "reason"),
    [
        ("8.8.8.8", "9.9.9.9", "it claims 8.8.8.8 but was seen from 9.9.9.9; add 8.8.8.8 to targets.owned_networks"),
        ("8.8.8.8", "8.8.8.8", None),
        ("10.0.0.7", "9.9.9.9", None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1 is a loopback address"),
        ("169.254.1.1", "169.254.1.1", "169.254.1.1 is a link-local address"),
        ("224.0.0.1", "10.0.0.1", "224.0.0.1 is not the address of one host"),
    ],
)
def test_an_agent_cannot_aim_the_mesh_by_claiming_an_address(
    opened: Open, claimed: str, observed: str, reason: str | None
) -> None:
    """It is approved, but a target of the others only at an address of its own, and it says why not."""
    with opened(mesh=True) as services:
        approve(services, 1, ip=claimed, observed=observed)
        [view] = services.registry.agents()

        assert view.state is State.APPROVED
        assert [t.address for t in services.registry.targets()] == ([claimed] if reason is None else [])
        said = services.registry.describe(view)["not_in_mesh"]
        assert said is None if reason is None else str(said).startswith(reason)


def test_at_its_own_address_an_agent_is_no_stranger(opened: Open) -> None:
    """A mesh over the Internet: more than twenty agents ping one that was seen where it says it is."""
    with opened(mesh=True, interval_s=1.0) as services:
        approve(services, 25, ip="8.8.4.{}")
        assert len(services.registry.targets()) == 25
        services.registry.add_target("by hand", "8.8.4.7", "test")


def test_nonsense_in_the_settings_is_refused() -> None:
    """With the key and what is allowed."""
    with pytest.raises(ConfigError, match=r"targets\.owned_networks = 'x' is wrong"):
        build({"targets": {"owned_networks": "x"}}, {})
    with pytest.raises(ConfigError, match=r"targets\.foreign_packets_per_s = 0\.0 is wrong"):
        build({"targets": {"foreign_packets_per_s": 0}}, {})
