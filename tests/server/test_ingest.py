"""From report to acknowledgement: committed before acknowledged, once and only once."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pingmon.services.book import Book
from pingmon.services.bundle import Services, open_services
from pingmon.services.ingest import Ingest
from pingmon.store.ledger import LedgerFile
from pingmon.store.rounds import Also, StoredRound, StoreError
from pingmon_agent.wire.contract import ErrorCode, Report, WireError
from pingmon_agent.wire.legacy import LegacySample

from .conftest import EPOCH, Approve, FakeClock, report


@pytest.fixture
def two_targets(committing: Services) -> Services:
    committing.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    return committing


def book(services: Services) -> Book:
    return Book(LedgerFile(services.config.data_dir / "samples.db"), services.clock, services.clocks, 5)


def stored(services: Services) -> list[tuple[int, list[int]]]:
    return [(r.seq, r.samples.tolist()) for r in services.rounds.since(0)]


def test_an_acknowledged_report_is_on_disk_and_in_memory(two_targets: Services, approve: Approve) -> None:
    """When the answer arrives, another program can already read the rounds."""
    agent = approve()

    answer = two_targets.ingest.submit(agent.no, report(two_targets, agent, 1, [120, -1], [130, 99]))

    assert answer == {"ok": True, "upto": 2, "dup": 0}
    assert stored(two_targets) == [(1, [120, -1]), (2, [130, 99])]
    pair = two_targets.history.pair("probe-1", "b")
    assert [(s["rtt_ms"], s["status"]) for s in pair["samples"]] == [(None, "timeout"), (0.099, "ok")]


def test_a_repeated_report_changes_nothing(two_targets: Services, approve: Approve) -> None:
    """A lost acknowledgement makes the agent send again; nothing is stored twice."""
    agent = approve()
    first = report(two_targets, agent, 1, [1, 2], [3, 4])
    two_targets.ingest.submit(agent.no, first)

    again = two_targets.ingest.submit(agent.no, first)
    overlapping = two_targets.ingest.submit(agent.no, report(two_targets, agent, 2, [3, 4], [5, 6]))

    assert (again["dup"], again["upto"]) == (2, 2)
    assert (overlapping["dup"], overlapping["upto"]) == (1, 3)
    assert [seq for seq, _ in stored(two_targets)] == [1, 2, 3]
    assert len(two_targets.history.pair("probe-1", "a")["samples"]) == 3


def test_duplicates_in_one_commit_are_seen(services: Services, approve: Approve) -> None:
    """Two copies that wait for the same commit count once."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    same = report(services, agent, 1, [1, 2])
    answers: list[Any] = []
    senders = [
        threading.Thread(target=lambda: answers.append(services.ingest.submit(agent.no, same))) for _ in range(2)
    ]
    for sender in senders:
        sender.start()
    while services.ingest.pressure.waiting_samples < 4:
        threading.Event().wait(0.001)

    committer = threading.Thread(target=services.ingest.run)
    committer.start()
    for sender in senders:
        sender.join()
    services.ingest.stop()
    committer.join()

    assert sorted(a["dup"] for a in answers) == [0, 1]
    assert len(stored(services)) == 1


def test_a_hole_must_be_declared(two_targets: Services, approve: Approve) -> None:
    """A missing number is refused with the number that is expected; declared as a gap it passes."""
    agent = approve()
    two_targets.ingest.submit(agent.no, report(two_targets, agent, 1, [1, 2]))
    late = report(two_targets, agent, 5, [9, 9])

    with pytest.raises(WireError) as caught:
        two_targets.ingest.submit(agent.no, late)
    declared = Report(epoch=late.epoch, rounds=late.rounds, gap=(2, 4, "expired"))

    assert caught.value.code is ErrorCode.SEQ_GAP
    assert "from seq 2 on" in caught.value.message
    assert two_targets.ingest.submit(agent.no, declared)["upto"] == 5


@pytest.mark.parametrize(
    ("change", "code"),
    [({"revision": 99}, ErrorCode.TARGET), ({"samples": array("i", [1])}, ErrorCode.BATCH)],
)
def test_rounds_must_fit_a_set_the_agent_had(
    two_targets: Services, approve: Approve, change: dict[str, Any], code: ErrorCode
) -> None:
    """An unknown revision or a wrong number of values is refused; nothing is stored."""
    import dataclasses

    agent = approve()
    good = report(two_targets, agent, 1, [1, 2])
    bad = dataclasses.replace(good, rounds=(dataclasses.replace(good.rounds[0], **change),))

    with pytest.raises(WireError) as caught:
        two_targets.ingest.submit(agent.no, bad)

    assert caught.value.code is code
    assert stored(two_targets) == []


def test_rounds_of_an_older_set_still_count(two_targets: Services, approve: Approve, clock: FakeClock) -> None:
    """What was measured before the targets changed arrives after it and goes to the right pairs."""
    agent = approve()
    old = report(two_targets, agent, 1, [11, 22])
    two_targets.registry.remove_target("a", "test")
    clock.advance(5)

    two_targets.ingest.submit(agent.no, report(two_targets, agent, 1, [33]))
    two_targets.ingest.submit(agent.no, Report(epoch="f" * 16, rounds=tuple(r for r in old.rounds)))

    rtts = [s["rtt_ms"] for s in two_targets.history.pair("probe-1", "b")["samples"]]
    assert rtts == [0.022, 0.033]


class BrokenStore:
    """A store whose disk is full."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.broken = True

    def write(
        self, rounds: Sequence[StoredRound], cursors: Mapping[tuple[int, str], int], now_ms: int, also: Also
    ) -> None:
        if self.broken:
            raise StoreError("database or disk is full")
        self._real.write(rounds, cursors, now_ms, also)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_nothing_is_acknowledged_that_was_not_stored(services: Services, approve: Approve) -> None:
    """While the disk is full the agent is told to come back; then the same report is taken, not called a duplicate."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    store = BrokenStore(services.rounds)
    ingest = Ingest(store, services.registry, services.clock, (), book(services), services.clocks)
    committer = threading.Thread(target=ingest.run)
    committer.start()
    waiting = report(services, agent, 1, [1, 2])

    refused = ingest.submit(agent.no, waiting)
    store.broken = False
    taken = ingest.submit(agent.no, waiting)
    ingest.stop()
    committer.join()

    assert (refused["ok"], refused["code"], refused["retry_after_s"]) == (False, ErrorCode.SERVER, 5)
    assert taken == {"ok": True, "upto": 1, "dup": 0}
    assert ingest.counters.errors == 1


def test_a_fault_in_a_sink_does_not_stop_the_committer(services: Services, approve: Approve) -> None:
    """A bug behind the commit is answered as a server error and the next report is served."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    seen: list[int] = []

    def sink(row: StoredRound, _ids: tuple[int, ...]) -> None:
        seen.append(row.seq)
        if len(seen) == 1:
            raise ZeroDivisionError

    ingest = Ingest(services.rounds, services.registry, services.clock, (sink,), book(services), services.clocks)
    committer = threading.Thread(target=ingest.run)
    committer.start()
    first = ingest.submit(agent.no, report(services, agent, 1, [1, 2]))
    second = ingest.submit(agent.no, report(services, agent, 2, [1, 2]))
    ingest.stop()
    committer.join()

    assert (first["ok"], second["ok"], seen) == (False, True, [1, 2])


def test_back_pressure_answers_at_once(services: Services, approve: Approve, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than fits is refused with a time to come back, not queued without end."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    monkeypatch.setattr("pingmon.services.pressure.MAX_WAITING_SAMPLES", 1)

    answer = services.ingest.submit(agent.no, report(services, agent, 1, [1, 2]))

    assert (answer["ok"], answer["code"]) == (False, ErrorCode.SERVER)


def test_a_restart_remembers_how_far_each_agent_is(two_targets: Services, approve: Approve, clock: FakeClock) -> None:
    """Cursor and rounds are committed together: a new process takes no round twice and shows the last hour."""
    agent = approve()
    two_targets.ingest.submit(agent.no, report(two_targets, agent, 1, [1, 2], [3, -1]))
    again = open_services(two_targets.config, clock)

    try:
        assert again.ingest.upto(agent.no, EPOCH) == 2
        assert again.warm_up() == 2
        assert again.history.pair("probe-1", "b") == two_targets.history.pair("probe-1", "b")
        assert again.grid.picture_json()["rtt_ms"] == two_targets.grid.picture_json()["rtt_ms"]
    finally:
        again.close()


@pytest.mark.parametrize("offset_s", [-90_000, 7_200])
def test_a_wrong_clock_does_not_decide_how_long_a_round_is_kept(
    two_targets: Services, approve: Approve, clock: FakeClock, offset_s: int
) -> None:
    """A round from far in the past or future is kept under the server's own time and marked."""
    import dataclasses

    agent = approve()
    good = report(two_targets, agent, 1, [1, 2])
    skewed = dataclasses.replace(good.rounds[0], started_ms=clock.now_ms + offset_s * 1000)

    two_targets.ingest.submit(agent.no, Report(epoch=EPOCH, rounds=(skewed,)))

    row = next(iter(two_targets.rounds.since(0)))
    assert (row.started_ms, row.flags) == (clock.now_ms, 2)


def legacy(target: str, at_ms: int, sample: int) -> LegacySample:
    return LegacySample(target=target, at_ms=at_ms, sample=sample)


def test_legacy_samples_come_out_as_they_went_in(two_targets: Services, approve: Approve, clock: FakeClock) -> None:
    """Target by target or as a list, by address, name or id: the same moment is one round, nothing is invented."""
    agent = approve()
    now = clock.now_ms

    one = two_targets.legacy.submit(agent.no, [legacy("192.0.2.10", now - 9000, 1500)])
    many = two_targets.legacy.submit(
        agent.no, [legacy("a", now - 4000, -1), legacy("b", now - 4000, 7), legacy("nowhere", now, 1)]
    )

    assert (one["ok"], one["rejected"]) == (True, [])
    assert many["rejected"] == [["nowhere", ErrorCode.TARGET]]
    assert two_targets.history.pair("probe-1", "a")["samples"] == [
        {"timestamp": (now - 9000) / 1000, "rtt_ms": 1.5, "status": "ok"},
        {"timestamp": (now - 4000) / 1000, "rtt_ms": None, "status": "timeout"},
    ]
    assert [s["rtt_ms"] for s in two_targets.history.pair("probe-1", "b")["samples"]] == [0.007]


def test_a_legacy_sample_is_known_for_an_hour_and_after_a_restart(
    two_targets: Services, approve: Approve, clock: FakeClock
) -> None:
    """A sample sent again within the hour counts once, whether the server was restarted in between or not."""
    agent, at = approve(), clock.now_ms
    assert two_targets.legacy.submit(agent.no, [legacy("a", at, 5)])["ok"]
    for _ in range(3):
        clock.advance(1300)
        assert two_targets.legacy.submit(agent.no, [legacy("b", clock.now_ms, 6)])["ok"]
    assert two_targets.legacy.submit(agent.no, [legacy("b", clock.now_ms, 6)])["dup"] == 0
    assert len(two_targets.history.pair("probe-1", "b")["samples"]) == 3

    again = open_services(two_targets.config, clock)
    again.warm_up()
    assert again.legacy.submit(agent.no, [legacy("b", clock.now_ms, 6)]) == {"ok": True, "dup": 0, "rejected": []}
    again.close()


def test_two_legacy_reports_at_once_are_both_kept(services: Services, approve: Approve, clock: FakeClock) -> None:
    """An agent that reconnects may report while its last report still waits: neither takes the other's number."""
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent, answers = approve(), []

    def send(target: str) -> None:
        answers.append(services.legacy.submit(agent.no, [legacy(target, clock.now_ms + ord(target), 5)]))

    threads = [threading.Thread(target=send, args=(target,)) for target in "ab"]
    for thread in threads:
        thread.start()
    committer = threading.Thread(target=services.ingest.run)
    committer.start()
    for thread in threads:
        thread.join(5)
    services.ingest.stop()
    committer.join(5)

    assert [(answer["ok"], answer["dup"]) for answer in answers] == [(True, 0)] * 2
    assert [len(services.history.pair("probe-1", target)["samples"]) for target in "ab"] == [1, 1]


def test_a_legacy_sample_sent_twice_counts_once(two_targets: Services, approve: Approve, clock: FakeClock) -> None:
    """Same target and same time is the same sample, also where another target was reported for that time."""
    agent = approve()
    now = clock.now_ms
    for target in ("a", "a", "b", "b"):
        assert two_targets.legacy.submit(agent.no, [legacy(target, now, 5)])["ok"]

    for target in ("a", "b"):
        assert len(two_targets.history.pair("probe-1", target)["samples"]) == 1
