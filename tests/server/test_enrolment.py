"""Handshakes: who becomes pending, approved, held, and who is told no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pingmon.services.bundle import Services
from pingmon_agent.wire.contract import ErrorCode, State, WireError

from .conftest import Approve, FakeClock, hello, passphrase


def refusal(services: Services, secret: str, **who: str) -> WireError:
    with pytest.raises(WireError) as caught:
        services.enrolment.greet(hello(secret, **who), "192.0.2.1")
    return caught.value


def state(services: Services, agent_no: int) -> str:
    return str(services.enrolment.reply(agent_no, 0)["state"])


def test_a_new_agent_is_pending_and_stays_one_agent(services: Services) -> None:
    """Coming back makes no second row and spends no second use."""
    secret = passphrase(services, max_uses=1)

    first, again = (services.enrolment.greet(hello(secret), "192.0.2.1").agent_no for _ in range(2))

    assert first == again
    assert state(services, first) == "pending"
    assert services.enrolment.passphrases()[0].uses == 1


def test_approval_gives_the_agent_its_id_and_limits(services: Services, approve: Approve) -> None:
    """The answer to an approved agent holds all that it needs to go on."""
    agent = approve()

    answer = services.enrolment.reply(agent.no, 41)

    assert (answer["state"], answer["agent_id"], answer["upto"]) == ("approved", agent.id, 41)
    assert answer["limits"] == {"bytes": 65536, "rounds": 64, "samples": 12000, "spread_s": 1}


def test_an_upgraded_fleet_costs_no_decision_per_agent(services: Services, approve: Approve) -> None:
    """A new version shows at once, survives what others change before it is saved, and is saved with the last seen.

    A decision works out every agent's targets: a thousand agents that come back with a new version would take minutes.
    """
    secret = passphrase(services)
    agent_no = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no
    services.registry.approve(services.registry.snapshot.agents[agent_no].id, "test")
    before = services.registry.snapshot.revision

    assert services.enrolment.greet(hello(secret, version="2.0"), "192.0.2.1").agent_no == agent_no
    assert services.registry.snapshot.revision == before
    assert services.registry.agent("probe-1").version == "2.0"

    approve("probe-2", "192.0.2.2")
    assert services.registry.snapshot.revision > before
    assert services.registry.agent("probe-1").version == "2.0"

    services.registry.flush_seen()
    with services.registry.change():  # whatever it is: everything is read anew
        pass
    assert services.registry.agent("probe-1").version == "2.0"


@pytest.mark.parametrize("secret", ["secret", "pm1-00000000-00000000000000000000000000", "pml-0000-1", "PML-X"])
def test_other_plain_passphrases_are_not_taken(services: Services, secret: str) -> None:
    """Whatever was not made to be sent in the clear is refused, with the command that makes one."""
    error = refusal(services, secret)

    assert error.code is ErrorCode.LEGACY_DISABLED
    assert "`pingmon passphrases create --legacy`" in error.message


def test_wrong_secret_and_unknown_id_are_one_answer(services: Services) -> None:
    """A guesser learns nothing about which passphrases exist."""
    secret = passphrase(services)
    flipped = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    unknown = "pml-zzzzzzzz-" + secret[-26:]

    answers = {(e.code, e.message) for e in (refusal(services, flipped), refusal(services, unknown))}

    assert len(answers) == 1
    assert answers.pop()[0] is ErrorCode.PASSPHRASE


def test_a_sealed_passphrase_does_not_cross_in_clear(services: Services) -> None:
    """A passphrase made without --legacy is refused as plain text even though its secret is right."""
    secret = services.enrolment.create_passphrase("x", legacy=False, max_uses=1, ttl_s=3600, actor="test")[1]

    assert refusal(services, secret).code is ErrorCode.LEGACY_DISABLED


def test_spent_expired_and_revoked_have_their_own_codes(services: Services, clock: FakeClock) -> None:
    """Who holds the right secret is told why it no longer opens; nothing is spent."""
    spent, short, revoked = passphrase(services, max_uses=1), passphrase(services, ttl_s=60), passphrase(services)
    services.enrolment.greet(hello(spent, "first"), "192.0.2.1")
    services.enrolment.revoke_passphrase(revoked.split("-")[1], "test")
    clock.advance(61)

    codes = [refusal(services, secret, hostname="next").code for secret in (spent, short, revoked)]

    assert codes == [ErrorCode.PASSPHRASE_EXHAUSTED, ErrorCode.PASSPHRASE_EXPIRED, ErrorCode.PASSPHRASE_REVOKED]


def test_a_known_agent_outlives_its_passphrase(services: Services, approve: Approve, clock: FakeClock) -> None:
    """Expiry closes the door for newcomers only; revocation closes it for all."""
    secret = passphrase(services, ttl_s=60)
    no = services.enrolment.greet(hello(secret, "early"), "192.0.2.1").agent_no
    clock.advance(3600)

    assert services.enrolment.greet(hello(secret, "early"), "192.0.2.1").agent_no == no
    services.enrolment.revoke_passphrase(secret.split("-")[1], "test")
    assert refusal(services, secret, hostname="early").code is ErrorCode.PASSPHRASE_REVOKED


def test_revoking_a_passphrase_stops_who_uses_it(services: Services) -> None:
    """The agent is told at once, by the same way as any other change of its state."""
    secret = passphrase(services)
    no = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no
    services.registry.approve("probe-1", "test")
    heard: list[frozenset[int]] = []
    services.registry.listeners.append(heard.append)

    services.enrolment.revoke_passphrase(secret.split("-")[1], "test")

    assert heard == [frozenset({no})]
    assert services.enrolment.reply(no, 0)["code"] == ErrorCode.PASSPHRASE_REVOKED


def test_a_host_that_changes_to_our_agent_joins_the_mesh(services: Services) -> None:
    """A legacy client is nobody's target; the same host with a current agent is."""
    secret = passphrase(services)
    legacy = replace(hello(secret), epoch=None)
    services.enrolment.greet(legacy, "192.0.2.1")
    services.registry.approve("probe-1", "test")
    assert services.registry.targets() == []

    services.enrolment.greet(hello(secret), "192.0.2.1")

    assert [t.name for t in services.registry.targets()] == ["probe-1"]


def test_a_held_agent_does_not_move_its_target(services: Services) -> None:
    """Whoever holds a passphrase cannot point the whole mesh at an address nobody has looked at."""
    secret = passphrase(services)
    services.enrolment.greet(hello(secret), "192.0.2.1")
    services.registry.approve("probe-1", "test")

    services.enrolment.greet(hello(secret, ip="198.51.100.1"), "198.51.100.1")
    assert [t.address for t in services.registry.targets()] == ["192.0.2.1"]

    services.registry.release("probe-1", "test")
    assert [t.address for t in services.registry.targets()] == ["198.51.100.1"]


@pytest.mark.parametrize(("claimed", "observed"), [("192.0.2.9", "192.0.2.1"), ("192.0.2.1", "192.0.2.9")])
def test_another_address_means_hold(services: Services, claimed: str, observed: str) -> None:
    """Claimed and observed address both count; a release makes the new one the known one."""
    secret = passphrase(services)
    no = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no
    agent = services.registry.approve("probe-1", "test")

    services.enrolment.greet(hello(secret, ip=claimed), observed)

    held = services.registry.snapshot.agents[no]
    assert (held.state, held.hold_reason, held.previous_ip) == (State.HOLD, "ip_changed", "192.0.2.1")
    services.registry.release(agent.id, "test")
    services.enrolment.greet(hello(secret, ip=claimed), observed)
    assert state(services, no) == "approved"


def test_a_pending_agent_may_move(services: Services) -> None:
    """Nothing was approved yet, so the last address is simply the one to be looked at."""
    secret = passphrase(services)
    no = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no

    services.enrolment.greet(hello(secret, ip="192.0.2.9"), "192.0.2.9")

    assert state(services, no) == "pending"
    assert services.registry.snapshot.agents[no].ip_address == "192.0.2.9"


def test_the_waiting_room_is_finite(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaked passphrase fills no database."""
    monkeypatch.setattr("pingmon.services.enrolment.MAX_PENDING", 3)
    secret = passphrase(services, max_uses=100)
    for i in range(3):
        services.enrolment.greet(hello(secret, f"h{i}"), "192.0.2.1")

    assert refusal(services, secret, hostname="h4").code is ErrorCode.PENDING_FULL


def test_a_deleted_agent_may_ask_again(services: Services, approve: Approve) -> None:
    """Deleting forgets: the same host with a good passphrase is a new agent with a new id."""
    secret = passphrase(services)
    no = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no
    old = services.registry.delete("probe-1", "test")

    again = services.enrolment.greet(hello(secret), "192.0.2.1").agent_no
    fresh = services.registry.snapshot.agents[again]

    assert fresh.no != no
    assert fresh.id != old.id
    assert fresh.state is State.PENDING


def test_the_secret_is_nowhere_on_disk(services: Services) -> None:
    """The database keeps an HMAC; who steals it cannot enrol."""
    secret = passphrase(services)
    data = b"".join(p.read_bytes() for p in services.config.data_dir.iterdir())

    assert secret.split("-")[1].encode() in data
    assert secret.split("-")[2].encode() not in data


def test_ids_are_time_ordered_uuids(services: Services, clock: FakeClock) -> None:
    """An agent's id is a UUIDv7, so lists by id are lists by age."""
    import uuid

    from pingmon.services.enrolment import new_uid

    made = []
    for _ in range(3):
        made.append(new_uid(clock.wall_ms()))
        clock.advance(0.001)

    assert made == sorted(made)
    assert {uuid.UUID(uid).version for uid in made} == {7}
    assert {uuid.UUID(uid).variant for uid in made} == {uuid.RFC_4122}
