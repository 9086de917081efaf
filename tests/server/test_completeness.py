"""The completeness ledger: expected = received + missing, every missing round has one reason, whatever happened."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pingmon.config import build
from pingmon.services.account import Account, Facts, Window
from pingmon.services.bundle import Services, open_services
from pingmon.services.completeness import DAY_MS
from pingmon.services.errors import Invalid, Unavailable
from pingmon.services.reasons import NotExpected, Reason
from pingmon.services.views import AgentView
from pingmon.store.slots import HOUR_MS, first_slot, hour_of, mask, pack, resampled, runs, unpack
from pingmon_agent.wire.contract import ErrorCode, Report, WireError

from .conftest import EPOCH, Approve, FakeClock, passphrase, report
from .conftest import hello as handshake

STEP_S = 5.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for real time."""
    monkeypatch.setattr("pingmon.services.ingest.GROUP_S", 0)


class Scene:
    """One agent that measures each step, a server that beats as often, and what may go wrong between them."""

    def __init__(self, services: Services, agent: AgentView, clock: FakeClock) -> None:
        self.services, self.agent, self.clock = services, agent, clock
        self.seq, self.epoch, self.ahead_ms = 0, EPOCH, 0
        self.started_ms = clock.now_ms

    def beat(self) -> None:
        """As the scheduler does."""
        done = threading.Event()
        self.services.ingest.beat()
        self.services.ingest.between_commits(done.set)
        assert done.wait(10)

    def step(self, times: int = 1) -> None:
        """Time passes; the server is there."""
        for _ in range(times):
            self.clock.advance(STEP_S)
            self.beat()

    def send(self, gap: tuple[int, int, str] | None = None, ago_s: tuple[float, ...] = (0.0,)) -> Any:
        """The next rounds, measured so long ago."""
        rows = []
        for ago in ago_s:
            one = report(self.services, self.agent, self.seq + 1, [7] * self.columns(), epoch=self.epoch).rounds[0]
            started_ms = self.clock.now_ms - round(ago * 1000) + self.ahead_ms
            rows.append(dataclasses.replace(one, started_ms=started_ms))
            self.seq += 1
        sent_ms = self.clock.now_ms + self.ahead_ms
        whole = Report(epoch=self.epoch, rounds=tuple(rows), gap=gap, sent_ms=sent_ms)
        return self.services.ingest.submit(self.agent.no, whole)

    def columns(self) -> int:
        """Of the agent's set."""
        return len(self.services.registry.snapshot.sets[self.agent.no].target_ids)

    def live(self, times: int) -> None:
        """All is well for so many steps."""
        for _ in range(times):
            self.step()
            assert self.send()["ok"]

    def account(self, **span: float) -> dict[str, Any]:
        """The agent's account, at a time by which everything counts."""
        body = self.services.completeness.agent(self.agent.id, **span)
        check(body)
        return body

    def reasons(self) -> dict[str, int]:
        """Why rounds are missing, without zeros."""
        return {why: n for why, n in self.account()["reasons"].items() if n}


def check(body: dict[str, Any]) -> None:
    """What holds for every account."""
    parts = [body, *body["hours"]]
    for part in parts:
        assert part["expected"] == part["received"] + part["missing"]
        assert part["missing"] == sum(part["reasons"].values())
        assert 0 <= part["late"] <= part["received"]
        assert set(part["reasons"]) == set(Reason)
    for name in ("expected", "received", "late", "missing"):
        assert body[name] == sum(hour[name] for hour in body["hours"])
    assert body["missing"] == sum(gap["rounds"] for gap in body["gaps"])
    for gap in body["gaps"] + body["not_expected"]:
        assert gap["to"] - gap["from"] == pytest.approx(gap["rounds"] * body["interval_s"])
        assert gap["text"]


@pytest.fixture
def scene(committing: Services, approve: Approve, clock: FakeClock) -> Scene:
    clock.now_ms += 1_300  # no test may depend on rounds that start with a slot
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    scene = Scene(committing, approve(), clock)
    scene.beat()
    return scene


def test_a_quiet_hour_is_complete(scene: Scene) -> None:
    """All rounds came: nothing is missing, and what is too fresh to be missed is not expected yet."""
    scene.live(100)

    body = scene.account()
    assert (body["expected"], body["received"], body["late"], body["missing"]) == (96, 96, 0, 0)
    assert body["gaps"] == []
    assert {pause["reason"] for pause in body["not_expected"]} == {NotExpected.NOT_APPROVED}


def test_the_agent_was_down(scene: Scene) -> None:
    """The server looked and heard nothing, also where not one round came in the whole time."""
    scene.step(20)
    nothing = scene.account()
    scene.live(10)

    assert (nothing["received"], nothing["reasons"][Reason.AGENT_DOWN]) == (0, nothing["expected"])
    assert scene.reasons() == {Reason.AGENT_DOWN: 20}
    assert scene.account()["gaps"][0]["text"] == "nothing was heard from the agent"


def test_the_server_was_away_until_the_rounds_come_in_late(scene: Scene) -> None:
    """No beats, no blame for the agent; what its ring kept closes the gap, what it no longer had says so."""
    scene.live(10)
    scene.clock.advance(300)
    scene.beat()
    away = scene.reasons()
    scene.seq = 30
    scene.send(gap=(11, 30, "expired"), ago_s=tuple(195.0 - 5 * i for i in range(40)))
    scene.live(5)

    assert away == {Reason.SERVER_AWAY: 56}
    body = scene.account()
    assert {why: n for why, n in body["reasons"].items() if n} == {Reason.RING_EXPIRED: 20}
    assert body["late"] == 36
    assert body["gaps"][0]["rounds"] == 20


def test_rejected_rounds_say_so(scene: Scene) -> None:
    """A round that the server refused and the agent gave up is no fault of the way or the server."""
    scene.live(10)
    scene.step()
    scene.seq += 1
    with pytest.raises(WireError, match="declare the gap"):
        scene.send()
    scene.step()
    scene.seq = 11
    scene.send(gap=(11, 11, ErrorCode.BATCH))
    scene.live(5)

    assert scene.reasons() == {Reason.REJECTED: 1}


def test_held_and_not_approved(scene: Scene, clock: FakeClock) -> None:
    """On hold rounds are due and missing; after a rejection nobody expects any."""
    registry = scene.services.registry
    scene.live(10)
    registry.hold(scene.agent.id, "test")
    scene.step(12)
    held = scene.reasons()
    registry.release(scene.agent.id, "test")
    scene.live(5)
    registry.reject(scene.agent.id, "test")
    expected = scene.account()["expected"]
    scene.step(50)

    assert held == {Reason.HELD: 8}
    assert scene.reasons() == {Reason.HELD: 12}
    assert scene.account()["expected"] - expected <= 3
    assert scene.account()["not_expected"][-1]["text"] == "the agent was not approved"


def test_a_clock_that_was_set_is_a_reason_of_its_own(scene: Scene) -> None:
    """Until the new offset is measured, rounds stand an hour away; their places say why they are empty."""
    scene.live(10)
    scene.ahead_ms = -3_600_000
    scene.live(10)

    assert set(scene.reasons()) == {Reason.CLOCK}
    assert 1 <= scene.reasons()[Reason.CLOCK] <= 5


def test_clocks_that_are_off_shift_nothing(scene: Scene) -> None:
    """An agent 40 s ahead, or hours behind with its rounds under the server's time, is as complete as any."""
    for ahead_ms in (40_000, -100_000_000):
        scene.epoch = f"{abs(ahead_ms):016x}"
        scene.seq, scene.ahead_ms = 0, ahead_ms
        scene.services.clocks.heard(scene.agent.no, scene.clock.now_ms + ahead_ms)
        for _ in range(5):
            scene.services.clocks.heard(scene.agent.no, scene.clock.now_ms + ahead_ms)
        scene.live(30)

    assert scene.account()["missing"] == 0


@pytest.mark.parametrize("phase_ms", [0, 2, 2_500, 4_998])
def test_no_phase_makes_a_hole(scene: Scene, phase_ms: int) -> None:
    """Rounds that start at the edge of a slot, a few milliseconds to and fro, count one by one."""
    scene.clock.now_ms = scene.clock.now_ms // 5000 * 5000 + phase_ms
    chance = Random(phase_ms)
    for _ in range(60):
        scene.step()
        scene.send(ago_s=(chance.uniform(-0.004, 0.004),))

    assert scene.account()["missing"] == 0


def test_a_pair_is_the_agent_while_it_had_the_target(scene: Scene) -> None:
    """A target that came later and went again is expected in between, and not otherwise."""
    scene.live(10)
    scene.services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    scene.live(10)
    scene.step(8)
    old = scene.services.completeness.pair("probe-1", "a")
    pair = scene.services.completeness.pair("probe-1", "b")
    scene.services.registry.put_targets([("b", "192.0.2.11")], "test")
    scene.live(10)
    later = scene.services.completeness.pair("probe-1", "b")

    for body in (old, pair, later):
        check(body)
    assert (old["expected"], old["missing"]) == (24, 4)
    assert (pair["expected"], pair["missing"]) == (14, 4)
    assert (later["expected"], later["missing"]) == (24, 8)
    assert pair["not_expected"][-1]["reason"] == NotExpected.NOT_A_TARGET


def test_before_the_ledger_nothing_is_claimed(committing: Services, approve: Approve, clock: FakeClock) -> None:
    """A server that was upgraded does not call the time before an outage."""
    committing.registry.put_targets([("a", "192.0.2.10")], "test")
    agent = approve()
    clock.advance(3600)
    scene = Scene(committing, agent, clock)
    scene.live(10)

    body = scene.account()
    assert body["missing"] == 0
    assert [pause["reason"] for pause in body["not_expected"]][-1] == NotExpected.NO_LEDGER


def test_a_restart_keeps_the_account(scene: Scene) -> None:
    """All of it is in the database: another process says the same, and its start is not an outage of the agent."""
    scene.live(10)
    scene.step(10)
    scene.live(10)
    again = open_services(scene.services.config, scene.clock)

    assert again.completeness.agent("probe-1") == scene.account()
    line = again.completeness.line(again.registry.agent("probe-1"))
    assert line == "rounds of the last 24 h: 26 expected, 16 received (0 late), 10 missing (10 agent down)"
    again.close()


def test_nonsense_is_refused_with_a_sentence(scene: Scene) -> None:
    """No account for a time that is none, and none made up while the database cannot be read."""
    now = scene.clock.now_ms / 1000
    for span in ({"from_s": now}, {"from_s": now - 40 * 86_400}, {"from_s": -1.0}, {"to_s": 5.0}):
        with pytest.raises(Invalid):
            scene.services.completeness.agent("probe-1", **span)
    (scene.services.config.data_dir / "samples.db").unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        scene.account()


def test_old_pages_of_the_ledger_go(scene: Scene) -> None:
    """After a month the rows are gone, and nothing is claimed about that time."""
    scene.live(10)
    scene.clock.advance(33 * 86_400)
    scene.beat()
    scene.services.retention.run()
    scene.epoch, scene.seq = "f" * 16, 0  # how far the old one was is forgotten, too
    scene.live(10)

    body = scene.account(from_s=scene.clock.now_ms / 1000 - 31 * 86_400)
    assert body["expected"] == body["received"]
    assert body["not_expected"][0]["reason"] == NotExpected.NO_LEDGER


# -- the parts, with whatever comes --

BITS = st.integers(0, (1 << 200) - 1)
SPANS = st.lists(st.tuples(st.integers(0, 1_100), st.integers(0, 300)), max_size=4).map(
    lambda pairs: [(a, a + n) for a, n in pairs]
)


@pytest.mark.slow
@settings(deadline=None)
@given(
    received=BITS,
    late=BITS,
    expected=SPANS,
    reasons=st.dictionaries(st.sampled_from(list(Reason)), SPANS),
    causes=st.lists(st.tuples(st.sampled_from(list(NotExpected)), SPANS), max_size=3),
    interval=st.integers(1, 30),
    begin=st.integers(0, 500),
    length=st.integers(1, 700),
)
def test_every_slot_has_exactly_one_answer(
    received: int, late: int, expected: Any, reasons: Any, causes: Any, interval: int, begin: int, length: int
) -> None:
    """Received, missing for one reason, or not expected: no slot is two of these, whatever the facts say."""
    window = Window.of(begin, begin + length, interval)
    account = Account(Facts(window, received, late, expected, causes, reasons))
    totals = account.totals()

    assert totals.expected == totals.received + totals.missing
    assert account.late & ~account.received == 0
    taken = account.received
    for bits in account.missing.values():
        assert taken & bits == 0
        taken |= bits
    assert taken == account.expected
    for bits in account.not_expected.values():
        assert bits & (account.expected | received) == 0
    assert totals.missing == sum(gap.rounds for gap in account.gaps())
    halves = [account.totals(0, begin + length // 2), account.totals(begin + length // 2, 10**9)]
    assert totals.missing == sum(half.missing for half in halves)
    assert totals.received == sum(half.received for half in halves)


@given(bits=BITS, first=st.integers(-5, 220), last=st.integers(-5, 220))
def test_bits(bits: int, first: int, last: int) -> None:
    """Runs rebuild the number, bytes keep it, a mask covers what it says."""
    assert sum(mask(a, b) for a, b in runs(bits)) == bits
    assert unpack(pack(bits)) == bits
    assert mask(first, last).bit_count() == max(0, last - max(first, 0))


@given(interval=st.integers(100, 3_600_000), at=st.integers(0, 10**13))
def test_every_slot_belongs_to_one_hour(interval: int, at: int) -> None:
    """A slot's place within its hour is never negative and never in the next one."""
    slot = at // interval
    hour = hour_of(slot, interval)
    assert first_slot(hour, interval) <= slot < first_slot(hour + HOUR_MS, interval)


def test_another_interval_keeps_what_is_known() -> None:
    """Bits written under another probing interval cover the same time, as well as slots can."""
    full = mask(0, 720)
    assert resampled(full, 0, 5_000, 10_000) == mask(0, 360)
    assert resampled(mask(0, 360), 0, 10_000, 5_000) == full
    assert resampled(mask(0, 10), 7 * HOUR_MS, 5_000, 20_000) == mask(0, 3)


# -- the whole, with whatever happens --

EVENTS = st.sampled_from(
    ["send", "send", "send", "keep", "keep", "lose", "restart agent", "server away", "hold", "double"]
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger")


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=5, max_size=60), seed=st.integers(0, 2**16))
def test_whatever_happens_the_account_balances(home: Path, events: list[str], seed: int) -> None:
    """Reports, gaps, restarts, outages and holds in any order: the sums hold, and received is what is stored."""
    clock = FakeClock(1_800_000_001_300)
    services = open_services(build({"server": {"data_dir": str(home / f"{Random().getrandbits(64):x}")}}, {}), clock)
    committer = threading.Thread(target=services.ingest.run)
    committer.start()
    try:
        services.registry.put_targets([("a", "192.0.2.10")], "test")
        no = services.enrolment.greet(handshake(passphrase(services)), "192.0.2.1").agent_no
        scene = Scene(services, services.registry.approve(services.registry.snapshot.agents[no].id, "test"), clock)
        scene.beat()
        _play(scene, events, Random(seed))
        scene.step(4)
        body = scene.account()
        stored = {r.started_ms // 5_000 for r in services.rounds.since(0)}
    finally:
        services.ingest.stop()
        committer.join(5)
        services.close()

    first = first_slot(scene.started_ms, 5_000)
    assert body["received"] == len({slot for slot in stored if slot >= first})
    assert body["expected"] == (clock.now_ms - 15_000) // 5_000 - first
    assert set(body["reasons"]) == set(Reason)
    assert body["to"] - body["from"] == DAY_MS / 1000


def _play(scene: Scene, events: list[str], chance: Random) -> None:
    kept: list[float] = []  # when the rounds in the ring were measured
    lost = 0

    def flush() -> None:
        nonlocal lost
        kept.append(scene.clock.now_ms / 1000)
        ago = tuple(scene.clock.now_ms / 1000 - at for at in kept)
        gap = (scene.seq + 1, scene.seq + lost, chance.choice(["expired", "E_BATCH"])) if lost else None
        scene.seq += lost
        assert scene.send(gap=gap, ago_s=ago)["ok"]
        kept.clear()
        lost = 0

    for event in events:
        scene.clock.advance(STEP_S)
        if event != "server away":
            scene.beat()
        if event == "send":
            flush()
        elif event in ("keep", "server away"):
            kept.append(scene.clock.now_ms / 1000)
        elif event == "lose":
            lost += len(kept) + 1
            kept.clear()
        elif event == "restart agent":
            kept.clear()
            lost, scene.seq, scene.epoch = 0, 0, f"{chance.getrandbits(64):016x}"
        elif event == "double":
            flush()
            scene.seq -= 1
            assert scene.send()["dup"] == 1
        else:
            scene.services.registry.hold(scene.agent.id, "test")
            scene.clock.advance(chance.choice([STEP_S, 60.0]))
            scene.beat()
            scene.services.registry.release(scene.agent.id, "test")
