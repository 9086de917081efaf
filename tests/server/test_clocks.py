"""Agents' clocks: measured through the noise of the way, put right in what is shown, and what comes late is no news."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingmon.services.bundle import Services, open_services
from pingmon.services.clocks import Clocks, Lag
from pingmon.services.views import AgentView
from pingmon.store.rounds import FLAG_CLOCK, FLAG_LATE, StoredRound
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake, Report
from pingmon_agent.wire.legacy import LegacySample

from .conftest import EPOCH, Approve, FakeClock, report


def skewed(plain: Report, by_ms: int, sent_ms: int | None = None) -> Report:
    """The report of an agent whose clock is `by_ms` ahead; `sent_ms` as the right clock has it."""
    rounds = tuple(dataclasses.replace(r, started_ms=r.started_ms + by_ms) for r in plain.rounds)
    return dataclasses.replace(plain, rounds=rounds, sent_ms=None if sent_ms is None else sent_ms + by_ms)


def first(services: Services) -> StoredRound:
    return next(iter(services.rounds.since(0)))


@given(
    offset=st.integers(-10_000_000, 10_000_000),
    ways=st.lists(st.integers(3, 1_500), min_size=1, max_size=30),
)
def test_the_way_only_adds(offset: int, ways: list[int]) -> None:
    """Whatever the ways took, the estimate is the clock's offset and the shortest of them."""
    lag = Lag()
    for i, way in enumerate(ways):
        lag.add(way - offset, i * 5)

    assert lag.least == min(ways) - offset


def test_a_clock_that_is_set_is_noticed_within_seconds_and_a_slow_way_is_not_a_step() -> None:
    """Ahead at once; back after five reports that agree; a way that takes longer now and then changes nothing."""
    lag = Lag()
    for i in range(20):
        lag.add(10, i * 5)
    for i, way in enumerate((4_000, 9_000, 3_000, 7_000, 5_500, 8_000)):
        lag.add(way, 100 + i * 5)
    noisy = lag.least
    lag.add(-3_600_000, 130)
    ahead = lag.least
    for i in range(5):
        lag.add(20, 135 + i * 5)

    assert (noisy, ahead, lag.least) == (10, -3_600_000, 20)


def test_old_measurements_are_forgotten() -> None:
    """A clock that drifts is followed: the least counts for ten minutes."""
    lag = Lag()
    lag.add(0, 0)
    for minute in range(1, 12):
        lag.add(100 * minute, minute * 60)

    assert lag.least == 200


def test_sent_travels_in_handshakes_and_reports_and_may_be_left_out() -> None:
    """The optional field comes out as it went in; without it the messages are what they always were."""
    hello = Handshake(passphrase="s", hostname="a", ip_address="192.0.2.1", version="1", epoch=EPOCH, sent_ms=17)
    for message in (hello, dataclasses.replace(hello, sent_ms=None)):
        assert codec.decode_handshake(json.loads(json.dumps(codec.encode_handshake(message)))) == message
    body = {"v": 1, "epoch": EPOCH, "rounds": [{"seq": 1, "t": 5, "rev": 1, "rtt": [1]}]}
    assert codec.encode_report(codec.decode_report(body)) == body
    assert codec.encode_report(codec.decode_report(body | {"sent": 9})) == body | {"sent": 9}
    with pytest.raises(codec.WireError, match="sent must be"):
        codec.decode_report(body | {"sent": "soon"})


@pytest.mark.parametrize("by_ms", [-1_800_000, 45_000])
def test_stored_as_the_agent_says_and_shown_as_it_was(
    committing: Services, approve: Approve, clock: FakeClock, by_ms: int
) -> None:
    """The database keeps the agent's own time; history, grid and a restarted server show the right one."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent, at = approve(), clock.now_ms

    committing.ingest.submit(agent.no, skewed(report(committing, agent, 1, [7]), by_ms, clock.now_ms))
    again = open_services(committing.config, clock)
    again.warm_up()

    assert committing.clocks.offset_ms(agent.no) == by_ms
    assert (first(committing).started_ms, first(committing).flags) == (at + by_ms, 0)
    for services in (committing, again):
        assert [s["timestamp"] for s in services.history.pair("probe-1", "a")["samples"]] == [at / 1000]
        assert services.grid.picture_json()["agents"][0]["last_round"] == at / 1000
        assert services.recent.newest_ms(agent.no) == at
    again.close()


def test_a_clock_that_is_hours_off_is_measured_too(committing: Services, approve: Approve, clock: FakeClock) -> None:
    """Its rounds stand under the server's time, as marked, and are neither corrected twice nor called late."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()

    committing.ingest.submit(agent.no, skewed(report(committing, agent, 1, [7]), 7_200_000, clock.now_ms))

    assert (first(committing).started_ms, first(committing).flags) == (clock.now_ms, FLAG_CLOCK)
    assert [s["timestamp"] for s in committing.history.pair("probe-1", "a")["samples"]] == [clock.now_ms / 1000]
    assert committing.grid.picture_json()["agents"][0]["last_round"] == clock.now_ms / 1000
    assert committing.clocks.offset_ms(agent.no) == 7_200_000


@pytest.mark.parametrize("by_ms", [0, -40_000, 45_000])
def test_late_rounds_are_history_and_no_news(
    committing: Services, approve: Approve, clock: FakeClock, by_ms: int
) -> None:
    """What an agent kept for minutes changes no cell, no age and no newest round, by whatever its clock says."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()

    def send(seq: int, sample: int, ago_s: float) -> None:
        plain = skewed(report(committing, agent, seq, [sample]), by_ms - round(ago_s * 1000))
        committing.ingest.submit(agent.no, dataclasses.replace(plain, sent_ms=clock.now_ms + by_ms))

    send(1, 700, 2)
    clock.advance(120)
    silent = committing.grid.stale(agent.no, clock.now_ms)
    newest = committing.recent.newest_ms(agent.no)
    for seq, ago_s in ((2, 115), (3, 60), (4, 16)):
        send(seq, -1, ago_s)
    body = committing.grid.picture_json()

    assert silent
    assert [body[key][0][0] for key in ("rtt_ms", "state", "loss")] == [0.7, "stale", 0.0]
    assert committing.recent.newest_ms(agent.no) == newest
    assert [s["status"] for s in committing.history.pair("probe-1", "a")["samples"]] == ["ok"] + ["timeout"] * 3
    assert [r.flags for r in committing.rounds.since(0)] == [0] + [FLAG_LATE] * 3
    assert committing.ingest.counters.late == 3

    send(5, 900, 15)
    assert committing.grid.picture_json()["state"][0][0] == "ok"

    again = open_services(committing.config, clock)
    again.warm_up()
    assert again.grid.picture_json()["rtt_ms"][0][0] == 0.9
    again.close()


def rounds_only(services: Services, agent: AgentView, clock: FakeClock, seq: int, ago_s: float) -> int:
    """The flags of one round of an agent that does not say when it sends."""
    plain = skewed(report(services, agent, seq, [5]), -round(ago_s * 1000))
    services.ingest.submit(agent.no, plain)
    return next(r.flags for r in services.rounds.since(0) if r.seq == seq)


def test_an_older_agent_with_a_slow_clock_is_live_after_three_reports(
    committing: Services, approve: Approve, clock: FakeClock
) -> None:
    """Without `sent` three reports that agree tell the clock; one that catches up agrees with nothing."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent, flags = approve(), []
    for seq in range(1, 6):
        flags.append(rounds_only(committing, agent, clock, seq, 61))
        clock.advance(5)
    clock.advance(600)
    for seq, ago_s in ((6, 600), (7, 400), (8, 200), (9, 62)):
        flags.append(rounds_only(committing, agent, clock, seq, ago_s))

    assert flags == [FLAG_LATE] * 2 + [0] * 3 + [FLAG_LATE] * 3 + [0]
    assert committing.clocks.offset_ms(agent.no) is None


def test_legacy_agents_are_judged_by_their_newest_sample(
    committing: Services, approve: Approve, clock: FakeClock
) -> None:
    """A fresh sample is live, an old one is late."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()
    for ago_ms in (1_000, 16_000):
        committing.legacy.submit(agent.no, [LegacySample(target="a", at_ms=clock.now_ms - ago_ms, sample=5)])

    assert sorted(r.flags for r in committing.rounds.since(0)) == [0, FLAG_LATE]


def test_a_correction_is_kept_once_and_put_back_where_it_could_not_be_saved(clock: FakeClock) -> None:
    """Rows come with changes only, and a commit that failed loses none."""
    clocks = Clocks(clock, 5, [])
    for by_ms in (20_000, 20_050, 20_300, 400):
        clocks.heard(1, clock.now_ms + by_ms)
        clock.advance(700)
    news = clocks.take_news()
    clocks.put_back(news, [])

    assert [offset for _, _, offset in news] == [20_000, 20_300, 0]
    assert (clocks.take_news(), clocks.take_news()) == (news, [])
