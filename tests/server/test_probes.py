"""How a target is probed: what may be asked for, and what several probes a round make of sets, history and picture."""

from __future__ import annotations

import json
from array import array

import pytest

from pingmon.services.bundle import Services
from pingmon.services.errors import Conflict, Invalid
from pingmon.services.probes import check_probe, parse_probe, spell_probe
from pingmon.store.rounds import FLAG_DISTURBED, StoredRound
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Probe

from .conftest import Approve, FakeClock, report

THREE = Probe(count=3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"count": 0}, "count must lie between 1 and 20"),
        ({"count": 1.5}, "count must be a number"),
        ({"count": True}, "count must be a number"),
        ({"size": 10}, "size must lie between 56 and 1400"),
        ({"size": 65_000}, "size must lie between 56 and 1400"),
        ({"interval_s": -1}, "interval_s must lie between 0 and 3600"),
        ({"interval_s": float("nan")}, "interval_s must lie between 0 and 3600"),
        ({"dscp": 64}, "dscp must lie between 0 and 63"),
        ({"ttl": 256}, "ttl must lie between 0 and 255"),
        ({"timeout_ms": "1"}, "timeout_ms must be a number"),
        ({"df": 1}, "df must be true or false"),
        ({"family": 5}, "family must be 0 (either), 4, 6 or 46 (both)"),
        ({"source": "here"}, "ip_address must be one IPv4 or IPv6 address, such as 192.0.2.17"),
        (
            {"speed": 1},
            "'speed' is no way to probe; there are count, interval_s, size, timeout_ms, family, ttl, dscp, df, source",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused(fields: dict[str, object], sentence: str) -> None:
    """Each refusal names the setting and what is allowed."""
    with pytest.raises(Invalid) as caught:
        check_probe(fields)

    assert caught.value.message == sentence


def test_words_and_fields_are_the_same_thing() -> None:
    """What is exported can be imported; standard settings are not written down."""
    words = ["count=3", "interval_s=10.0", "dscp=46", "df=true", "source=192.0.2.9"]
    probe = parse_probe(words)

    assert probe == Probe(count=3, interval_s=10.0, dscp=46, df=True, source="192.0.2.9")
    assert spell_probe(probe) == words
    assert spell_probe(Probe()) == []
    with pytest.raises(Invalid, match="'count' is no setting; write name=value, such as count=3"):
        parse_probe(["count"])


def test_agents_are_told_how_to_probe(services: Services, approve: Approve) -> None:
    """The settings travel with the set; a target of several probes has several columns; a change is a new revision."""
    agent = approve()
    services.registry.put_targets([("a", "192.0.2.10", THREE), ("b", "192.0.2.11", Probe(family=46))], "test")
    first = services.registry.message_for(agent.no)

    services.registry.change_target("b", "test", probe=Probe(family=46, dscp=46))
    second = codec.decode_targets(json.loads(json.dumps(codec.encode_targets(services.registry.message_for(agent.no)))))

    assert [t.probe.columns for t in first.targets] == [3, 2]
    a, b = (t.id for t in first.targets)
    assert services.registry.snapshot.sets[agent.no].target_ids == (a, a, a, b, b)
    assert (second.revision, second.columns) == (first.revision + 1, 5)
    assert second.targets[1].probe == Probe(family=46, dscp=46)


def test_a_list_without_settings_means_the_standard_ones(services: Services) -> None:
    """Putting the whole list is declarative: what it does not say is as it comes."""
    services.registry.put_targets([("a", "192.0.2.10", THREE)], "test")
    before = services.registry.snapshot.revision

    services.registry.put_targets([("a", "192.0.2.10", THREE)], "test")
    assert services.registry.snapshot.revision == before

    services.registry.put_targets([("a", "192.0.2.10")], "test")
    assert services.registry.target("a").probe == Probe()


def test_a_round_must_fit_one_report(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count times targets is limited by what one agent can report."""
    monkeypatch.setattr("pingmon.services.targets.MAX_TARGETS", 4)
    services.registry.add_target("a", "192.0.2.10", "test", THREE)

    with pytest.raises(Conflict, match="these are 6 probes in a round, more than the 4"):
        services.registry.add_target("b", "192.0.2.11", "test", THREE)
    with pytest.raises(Conflict, match="these are 5 probes"):
        services.registry.change_target("a", "test", probe=Probe(count=5))
    assert services.registry.target("a").probe == THREE


def test_an_agents_own_target_may_be_probed_another_way(services: Services, approve: Approve) -> None:
    """Name and address follow the agent; how it is probed is the operator's choice."""
    approve("one")

    assert services.registry.change_target("one", "test", probe=THREE).probe == THREE
    with pytest.raises(Conflict, match="one is a target because the agent is approved"):
        services.registry.change_target("one", "test", address="192.0.2.9")


def test_every_probe_of_a_round_is_in_the_history(committing: Services, approve: Approve) -> None:
    """Loss inside a round is kept, in the order of sending."""
    agent = approve()
    committing.registry.put_targets([("a", "192.0.2.10", THREE), ("b", "192.0.2.11")], "test")

    committing.ingest.submit(agent.no, report(committing, agent, 1, [30, -1, 10, 7]))

    assert [s["rtt_ms"] for s in committing.history.pair("probe-1", "a")["samples"]] == [0.03, None, 0.01]
    assert [s["rtt_ms"] for s in committing.history.pair("probe-1", "b")["samples"]] == [0.007]


def feed(services: Services, clock: FakeClock, *rounds: list[int], flags: int = 0) -> tuple[str, float | None, object]:
    """Work rounds in; (state, loss, RTT) of the first cell."""
    agent_no = services.grid.layout.agents[0].no
    current = services.registry.snapshot.sets[agent_no]
    for samples in rounds:
        clock.advance(5)
        services.grid.add(
            StoredRound(
                agent_no=agent_no,
                epoch="e",
                seq=clock.now_ms,
                started_ms=clock.now_ms,
                revision=current.revision,
                flags=flags,
                received_ms=clock.now_ms,
                samples=array("i", samples),
            ),
            current.target_ids,
        )
    picture = services.grid.picture_json()
    return picture["state"][0][0], picture["loss"][0][0], picture["rtt_ms"][0][0]


@pytest.fixture
def burst(services: Services, approve: Approve) -> Services:
    """One agent; target a is probed three times a round, b once."""
    services.registry.put_targets([("a", "192.0.2.10", THREE), ("b", "192.0.2.11")], "test")
    approve()
    return services


def test_a_cell_of_three_probes_shows_their_median(burst: Services, clock: FakeClock) -> None:
    """One number per cell, and loss in thirds of a round."""
    assert feed(burst, clock, [9000, 1000, 3000, 5]) == ("ok", 0.0, 3.0)
    assert feed(burst, clock, [9000, -1, 3000, 5]) == ("lossy", 0.1667, 9.0)
    assert burst.grid.picture_json()["state"][0] == ["lossy", "ok", "none"]


def test_three_rounds_without_a_reply_are_down(burst: Services, clock: FakeClock) -> None:
    """A round in which only some were lost does not count as dead."""
    assert feed(burst, clock, [1, 1, 1, 5], [-1, -1, -1, 5], [-1, -1, -1, 5])[0] == "lossy"
    assert feed(burst, clock, [-1, -1, 4, 5])[0] == "lossy"
    assert feed(burst, clock, *[[-1, -3, -1, 5]] * 3) == ("down", 0.8095, None)


def test_a_burst_keeps_its_memory_when_targets_change(burst: Services, clock: FakeClock) -> None:
    """A new column elsewhere blanks nothing; a skipped or disturbed round counts nothing."""
    feed(burst, clock, [-1, 1000, 1000, 5])
    burst.registry.add_target("c", "192.0.2.12", "test")

    assert feed(burst, clock, [-2, -2, -2, 5, 6]) == ("lossy", 0.3333, 1.0)
    assert feed(burst, clock, [-1, -1, -1, 5, 6], flags=FLAG_DISTURBED) == ("lossy", 0.3333, 1.0)
    assert feed(burst, clock, [-5, -5, -5, 5, 6])[0] == "error"
