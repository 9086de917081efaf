"""Cases 47 and 48 with the services alone: one report a hundred times at once, and a host that goes back in time."""

from __future__ import annotations

import copy
import threading
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from pingmon.services.bundle import Services
from pingmon_agent.delivery import Delivery
from pingmon_agent.ring import Ring
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake, Report, Round
from tests.server.conftest import FakeClock

from .conftest import applicant, back, enrolled, secret_of

EPOCH = "00112233445566aa"


@pytest.fixture
def committing(services: Services) -> Iterator[Services]:
    """Services whose committer runs."""
    thread = threading.Thread(target=services.ingest.run)
    thread.start()
    yield services
    services.ingest.stop()
    thread.join(5)
    assert not thread.is_alive()


def approved(services: Services) -> int:
    """The number of an agent that measures one target."""
    services.registry.add_target("one", "192.0.2.80", "test")
    who = applicant(services)
    no = enrolled(services, who, secret_of(services))
    services.registry.approve("probe-1", "test")
    assert back(services, who) == no
    return no


def test_case_47_the_same_report_a_hundred_times_at_once(committing: Services) -> None:
    """One hundred in parallel, as many in one commit as may be: four rounds stored, 396 counted as duplicates."""
    no = approved(committing)
    revision = committing.registry.snapshot.sets[no].revision
    now = committing.clock.wall_ms()
    rounds = tuple(
        Round(epoch=EPOCH, seq=seq, started_ms=now + seq, revision=revision, samples=array("i", [seq]))
        for seq in range(1, 5)
    )
    report = Report(epoch=EPOCH, rounds=rounds)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: committing.ingest.submit(no, report), range(100)))

    assert [answer["upto"] for answer in answers] == [4] * 100
    assert sorted(answer["dup"] for answer in answers) == [0] + [4] * 99
    assert committing.ingest.counters.duplicates == 396
    assert [s for _, s, _ in committing.rounds.pair(no, {revision: [0]}, 0, now + 10)] == [1, 2, 3, 4]


@dataclass
class Host:
    """An agent's own code beside a server's own services; a deep copy of it is a snapshot of the machine."""

    services: Services
    no: int
    ring: Ring = field(init=False)
    delivery: Delivery = field(init=False)

    def __post_init__(self) -> None:
        clock = self.services.clock
        self.ring = Ring(clock.monotonic)
        who = Handshake(passphrase="x", hostname="probe-1", ip_address="127.0.0.1", version="1")
        self.delivery = Delivery(self.ring, who, lambda _targets: None)

    def snapshot(self) -> Host:
        """The machine as it is now, memory and all."""
        shared = {id(self.services): self.services, id(self.services.clock): self.services.clock}
        locks = {id(self.ring._lock): threading.Lock()}
        return copy.deepcopy(self, {**shared, **locks})

    def measure(self, *values: int) -> None:
        """A round of one sample for each."""
        for value in values:
            revision = self.services.registry.snapshot.sets[self.no].revision
            at = self.services.clock.wall_ms()
            self.ring.append(started_ms=at, revision=revision, samples=array("i", [value]), disturbed=False)

    def connect(self) -> None:
        """Shake hands, again where the agent asks for it, and deliver all there is."""
        self.delivery.lost()
        while True:
            self.delivery.greet()
            upto = self.services.ingest.upto(self.no, self.ring.epoch)
            self.delivery.on_handshake(self.services.enrolment.reply(self.no, upto))
            if self.delivery.must_greet:
                continue
            self.deliver()
            return

    def deliver(self) -> None:
        """Reports until none is left."""
        while (report := self.delivery.next_report(self.services.clock.monotonic())) is not None:
            answer = self.services.ingest.submit(self.no, codec.decode_report(report.payload))
            self.delivery.on_ack(report.token, answer, self.services.clock.monotonic())


def kept(services: Services, no: int) -> list[int]:
    """All values that were stored, in any order of rounds."""
    (target,) = services.registry.snapshot.sets[no].target_ids
    return sorted(sample for _, sample, _ in services.recent.pair(no, target, 0))


@pytest.mark.parametrize("measured", [1, 3, 5], ids=["less than it was set back", "as much", "more"])
def test_case_48_a_restored_snapshot_swallows_no_fresh_sample(
    committing: Services, clock: FakeClock, measured: int
) -> None:
    """The machine goes back to a snapshot with its memory: same `inst`, same boot, an epoch whose next numbers the
    server has. The agent sees that the server knows numbers it has not sent, however many it has measured since, and
    goes on in an epoch of its own; nothing of either life is lost.
    """
    host = Host(committing, approved(committing))
    host.measure(1, 2)
    host.connect()
    before = host.snapshot()
    host.measure(11, 12, 13)
    host.deliver()
    assert committing.ingest.upto(host.no, host.ring.epoch) == 5

    clock.advance(60)
    epoch = before.ring.epoch
    fresh = [100 + i for i in range(measured)]
    before.measure(*fresh)
    before.connect()

    assert before.ring.epoch != epoch
    assert kept(committing, host.no) == [1, 2, 11, 12, 13, *fresh]


def test_case_48_an_answer_that_was_lost_is_no_snapshot(committing: Services) -> None:
    """The server may well have more than the agent heard of, if the agent sent it: the epoch goes on, nothing twice."""
    host = Host(committing, approved(committing))
    host.measure(1)
    host.connect()
    epoch = host.ring.epoch
    host.measure(2, 3)
    report = host.delivery.next_report(0.0)
    assert report is not None
    committing.ingest.submit(host.no, codec.decode_report(report.payload))
    host.measure(4)
    host.connect()

    assert host.ring.epoch == epoch
    assert kept(committing, host.no) == [1, 2, 3, 4]
