"""Agents, targets and the sets that agents are told to ping."""

from __future__ import annotations

import pytest

from pingmon.services.bundle import Services, open_services
from pingmon.services.errors import Conflict, Invalid, NotFound
from pingmon_agent.wire.contract import State

from .conftest import Approve, FakeClock, hello, passphrase


def names(services: Services, agent_no: int) -> list[str]:
    return [t.name for t in services.registry.message_for(agent_no).targets]


def test_approved_agents_ping_each_other_but_not_themselves(services: Services, approve: Approve) -> None:
    """In a mesh every approved agent is a target of all the others."""
    one, two = approve("one", "192.0.2.1"), approve("two", "192.0.2.2")
    services.registry.add_target("gw", "192.0.2.254", "test")

    assert names(services, one.no) == ["two", "gw"]
    assert names(services, two.no) == ["one", "gw"]


def test_a_change_tells_the_agents_it_concerns(services: Services, approve: Approve) -> None:
    """Listeners hear of exactly the agents whose state or set changed, and each set gets a new revision."""
    agent = approve()
    heard: list[frozenset[int]] = []
    services.registry.listeners.append(heard.append)
    before = services.registry.snapshot.sets[agent.no].revision

    services.registry.add_target("gw", "192.0.2.254", "test")

    assert heard == [frozenset({agent.no})]
    assert services.registry.snapshot.sets[agent.no].revision == before + 1


def test_a_new_address_is_a_new_revision(services: Services, approve: Approve) -> None:
    """A set never changes under its revision, not even the address of one target in it."""
    agent = approve()
    target = services.registry.add_target("gw", "192.0.2.254", "test")
    before = services.registry.message_for(agent.no)

    services.registry.change_target(str(target.id), "test", address="192.0.2.253")
    after = services.registry.message_for(agent.no)

    assert after.revision == before.revision + 1
    assert [t.address for t in after.targets] == ["192.0.2.253"]
    assert after.targets[0].id == before.targets[0].id


def test_the_same_list_again_changes_nothing(services: Services, approve: Approve) -> None:
    """Putting the whole list is idempotent: no revision, no push."""
    agent = approve()
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    before = services.registry.snapshot

    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")

    assert services.registry.snapshot is before
    assert names(services, agent.no) == ["a", "b"]


def test_putting_a_list_keeps_the_ids_of_what_stays(services: Services) -> None:
    """History belongs to an id, so a name that stays keeps it."""
    first = services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")

    second = services.registry.put_targets([("c", "192.0.2.12"), ("b", "192.0.2.99")], "test")

    assert [(t.name, t.address) for t in second] == [("b", "192.0.2.99"), ("c", "192.0.2.12")]
    assert second[0].id == first[1].id
    assert second[1].id not in {t.id for t in first}


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("300.1.1.1", "'300.1.1.1' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("2130706433", "'2130706433' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("0x7f.1", "'0x7f.1' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("1\u30022", "'1\u30022' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("a\u2024b", "'a\u2024b' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("a b", "'a b' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("", "'' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"),
        ("224.0.0.1", "'224.0.0.1' is not the address of one host; give a unicast address"),
        ("ff02::1", "'ff02::1' is not the address of one host; give a unicast address"),
        ("0.0.0.0", "'0.0.0.0' is not the address of one host; give a unicast address"),
        ("255.255.255.255", "'255.255.255.255' is not the address of one host; give a unicast address"),
        ("fe80::1%eth0", "'fe80::1%eth0' carries a zone (%...); give an address that is the same on every agent"),
    ],
)
def test_what_is_no_address_is_refused(services: Services, address: str, sentence: str) -> None:
    """A target that cannot be pinged is refused with its reason, and nothing is saved."""
    with pytest.raises(Invalid) as caught:
        services.registry.add_target("x", address, "test")

    assert caught.value.message == sentence
    assert services.registry.targets() == []


@pytest.mark.parametrize(
    ("text", "name"),
    [("Bücher.example", "xn--bcher-kva.example"), ("GW.Example.", "gw.example"), ("ä.ö.ü", "xn--4ca.xn--nda.xn--tda")],
)
def test_names_of_other_letters_are_kept_as_name_servers_know_them(services: Services, text: str, name: str) -> None:
    """What an operator types in their own script is what the agents can look up."""
    assert services.registry.add_target("x", text, "test").address == name


def test_a_bad_entry_leaves_the_whole_list_alone(services: Services) -> None:
    """A list is taken whole or not at all."""
    services.registry.put_targets([("a", "192.0.2.10")], "test")

    for bad in ([("b", "192.0.2.11"), ("c", "300.1.1.1")], [("b", "192.0.2.11"), ("b", "192.0.2.12")]):
        with pytest.raises(Invalid):
            services.registry.put_targets(bad, "test")

    assert [t.name for t in services.registry.targets()] == ["a"]


def test_an_agents_own_target_is_not_edited(services: Services, approve: Approve) -> None:
    """A mesh target lives and dies with its agent."""
    approve("one")

    with pytest.raises(Conflict, match="one is a target because the agent is approved"):
        services.registry.remove_target("one", "test")
    with pytest.raises(Conflict):
        services.registry.put_targets([("one", "192.0.2.10")], "test")


def test_rejecting_takes_the_agent_out_of_the_mesh(services: Services, approve: Approve) -> None:
    """A blacklisted agent is nobody's target, and its set is no longer kept up."""
    one, two = approve("one", "192.0.2.1"), approve("two", "192.0.2.2")

    services.registry.reject("one", "test")

    assert names(services, two.no) == []
    assert services.registry.snapshot.agents[one.no].state is State.BLACKLISTED


def test_approving_twice_is_no_error(services: Services, approve: Approve) -> None:
    """A playbook that runs again changes nothing."""
    agent = approve()
    before = services.registry.snapshot.revision

    assert services.registry.approve(agent.id, "test") == services.registry.snapshot.agents[agent.no]
    assert services.registry.snapshot.revision == before


def test_states_only_move_where_they_may(services: Services, approve: Approve) -> None:
    """Hold needs an approved agent, release one on hold, approval none on hold."""
    agent = approve()
    with pytest.raises(Conflict, match="only an agent on hold can be released"):
        services.registry.release(agent.id, "test")
    services.registry.hold(agent.id, "test")
    with pytest.raises(Conflict, match="release it instead"):
        services.registry.approve(agent.id, "test")
    with pytest.raises(Conflict, match="only an approved agent can be put on hold"):
        services.registry.hold(agent.id, "test")

    assert services.registry.release(agent.id, "test").state is State.APPROVED


def test_a_second_agent_of_the_same_name_is_not_approved(services: Services, approve: Approve) -> None:
    """Somebody with another passphrase cannot take over a known hostname, and the list warns of it."""
    first = approve("one")
    no = services.enrolment.greet(hello(passphrase(services), "one", "192.0.2.66"), "192.0.2.66").agent_no
    second = services.registry.snapshot.agents[no]

    with pytest.raises(Conflict, match="another agent called one is approved already"):
        services.registry.approve(second.id, "test")
    assert second.same_name_as == (first.id,)
    assert services.registry.snapshot.agents[first.no].state is State.APPROVED
    assert services.registry.agent("one").id == first.id


def test_unknown_names_say_where_to_look(services: Services) -> None:
    """A wrong reference is answered with the command that lists the right ones."""
    with pytest.raises(NotFound, match="`pingmon agents list`"):
        services.registry.agent("nobody")
    with pytest.raises(NotFound, match="`pingmon targets list`"):
        services.registry.target("nothing")


def test_another_program_s_change_is_noticed(services: Services, clock: FakeClock) -> None:
    """The command line writes the database; the server sees it at its next look."""
    from pingmon.services.registry import Registry

    other = Registry(services.directory, clock, services.registry.rules, mesh=True, interval_s=5)
    other.add_target("gw", "192.0.2.254", "cli")

    assert services.registry.targets() == []
    assert services.registry.refresh()
    assert [t.name for t in services.registry.targets()] == ["gw"]
    assert not services.registry.refresh()


def test_replaced_sets_go_with_the_rounds_that_needed_them(
    services: Services, approve: Approve, clock: FakeClock
) -> None:
    """A set is kept while stored rounds may refer to it, the one in force for ever."""
    agent = approve()
    for name in ("a", "b", "c"):
        services.registry.add_target(name, "192.0.2.10", "test")
        clock.advance(3600)
    newest = services.registry.snapshot.sets[agent.no].revision

    clock.advance(23 * 3600)
    services.retention.run()
    with services.directory.transaction() as tx:
        left = [r for r in range(1, newest + 1) if tx.target_set(agent.no, r) is not None]
    clock.advance(48 * 3600)
    services.retention.run()
    with services.directory.transaction() as tx:
        last = [r for r in range(1, newest + 1) if tx.target_set(agent.no, r) is not None]

    assert left == [newest - 2, newest - 1, newest]
    assert last == [newest]


def test_a_target_that_was_there_before_its_agent_stays(services: Services, approve: Approve) -> None:
    """An operator's own target that became an agent's comes back to the operator when the agent goes."""
    target = services.registry.add_target("probe-1", "192.0.2.1", "test")
    agent = approve()
    assert services.registry.target("probe-1").agent_id == agent.id

    services.registry.delete(agent.id, "test")

    assert [(t.id, t.name, t.agent_id) for t in services.registry.targets()] == [(target.id, "probe-1", None)]


def test_every_decision_is_in_the_audit_table(services: Services, approve: Approve) -> None:
    """Who did what is written in the transaction that did it."""
    agent = approve()
    services.registry.hold(agent.id, "alice")
    services.registry.release(agent.id, "bob")

    with services.directory.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT actor, action, subject FROM audit ORDER BY id").fetchall()

    assert [tuple(row) for row in rows[-2:]] == [
        ("alice", "agents.hold", agent.id),
        ("bob", "agents.release", agent.id),
    ]


def test_an_id_comes_before_a_name(services: Services, approve: Approve) -> None:
    """Nobody can hide a target or an agent by calling another one like its id."""
    services.registry.add_target("2", "192.0.2.10", "test")
    services.registry.add_target("192.0.2.10", "192.0.2.11", "test")
    agent = approve()
    approve(agent.id, "192.0.2.2")

    assert services.registry.target("2").id == 2
    assert services.registry.target("192.0.2.10").address == "192.0.2.11"
    assert services.registry.agent(agent.id).hostname == "probe-1"


def test_a_list_that_names_an_approved_agent_stays_idempotent(services: Services, approve: Approve) -> None:
    """A target may become an agent after the list was written: the same list is still no conflict and no change."""
    services.registry.put_targets([("probe-1", "192.0.2.1"), ("gw", "192.0.2.254")], "test")
    approve()
    before = services.registry.snapshot

    services.registry.put_targets([("probe-1", "192.0.2.1"), ("gw", "192.0.2.254")], "test")

    assert services.registry.snapshot is before
    with pytest.raises(Conflict, match="an agent's own target"):
        services.registry.put_targets([("probe-1", "192.0.2.9")], "test")


def test_a_list_may_be_as_long_as_one_agent_takes(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets that leave make room for those that come."""
    monkeypatch.setattr("pingmon.services.targets.MAX_TARGETS", 3)
    for names in ("abc", "def"):
        views = services.registry.put_targets([(n, f"192.0.2.{ord(n)}") for n in names], "test")
        assert "".join(view.name for view in views) == names

    with pytest.raises(Conflict, match="these are 4 probes in a round, more than the 3"):
        services.registry.put_targets([(n, f"192.0.2.{ord(n)}") for n in "defg"], "test")


def test_when_an_agent_was_seen_outlives_the_note_on_disk(
    services: Services, approve: Approve, clock: FakeClock
) -> None:
    """An agent that went silent shows when that was, not when the directory was last read."""
    agent = approve()
    clock.advance(600)
    services.registry.touch(agent.no)
    services.registry.flush_seen()

    assert services.registry.describe(services.registry.agent("probe-1"))["last_seen"] == clock.now_ms / 1000


def test_only_agents_that_measure_have_a_set_in_memory(services: Services, approve: Approve) -> None:
    """Sets of deleted and rejected agents are neither kept at hand nor counted as pairs; released ones come back."""
    services.registry.add_target("gw", "192.0.2.254", "test")
    one, two = approve("one", "192.0.2.1"), approve("two", "192.0.2.2")

    services.registry.delete("one", "test")
    services.registry.reject("two", "test")
    assert services.registry.snapshot.sets == {}
    assert services.registry.target_set(one.no, 1) is not None

    services.registry.approve("two", "test")
    assert names(services, two.no) == ["gw"]


def test_a_decision_knows_what_another_program_just_decided(services: Services, clock: FakeClock) -> None:
    """The command line approves one namesake, the web must not approve the other within the same second."""
    uids = []
    for ip in ("192.0.2.1", "192.0.2.2"):
        no = services.enrolment.greet(hello(passphrase(services), ip=ip), ip).agent_no
        uids.append(services.registry.snapshot.agents[no].id)
    with_cli = open_services(services.config, clock)
    with_cli.registry.approve(uids[0], "cli")
    with_cli.close()

    with pytest.raises(Conflict, match="is approved already"):
        services.registry.approve(uids[1], "web")
