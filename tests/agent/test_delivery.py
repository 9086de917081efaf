"""What the agent makes of each answer of the server, and that nothing is lost or sent twice whatever the line does."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pingmon_agent.answers import Patience
from pingmon_agent.delivery import Delivery
from pingmon_agent.refusals import Refusals
from pingmon_agent.ring import Ring
from pingmon_agent.session import SessionState
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import (
    MAX_MESSAGE_BYTES,
    MAX_SAMPLES_PER_REPORT,
    Handshake,
    Report,
    TargetSet,
    WireError,
)

AGENT = "6f1c2f9e-0000-4000-8000-000000000001"
Json = dict[str, Any]


def approved(upto: int = 0, **more: object) -> Json:
    """The server's approval."""
    return {"state": "approved", "agent_id": AGENT, "upto": upto, "targets_rev": 1} | more


def targets(revision: int = 1, agent_id: str = AGENT) -> Json:
    """A target set of one."""
    return {
        "agent_id": agent_id,
        "revision": revision,
        "issued_at": 0,
        "interval_s": 5,
        "targets": [{"id": 1, "name": "one", "address": "192.0.2.1"}],
        "sig": "",
    }


@dataclass
class Side:
    """An agent's side of the line, with a clock that the test turns."""

    now: float = 1000.0
    sets: list[TargetSet] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    names: tuple[int, dict[int, str]] = (-1, {})

    def __post_init__(self) -> None:
        self.ring = Ring(lambda: self.now)
        identity = Handshake(passphrase="pass", hostname="probe-1", ip_address="0.0.0.0", version="1")
        refusals = Refusals(lambda _set: self.refused, lambda: self.names)
        self.delivery = Delivery(self.ring, identity, self.sets.append, refusals)

    def measure(self, count: int = 1) -> None:
        """Put rounds into the ring."""
        for _ in range(count):
            number = self.ring.last_seq + 1
            self.ring.append(started_ms=number, revision=1, samples=array("i", [number]), disturbed=False)

    def report(self) -> tuple[int, Report]:
        """The next report, which must exist."""
        outgoing = self.delivery.next_report(self.now)
        assert outgoing is not None
        return outgoing.token, codec.decode_report(outgoing.payload)

    def ack(self, token: int, **body: object) -> bool:
        """Answer a report."""
        return self.delivery.on_ack(token, body, self.now)


@pytest.fixture
def side() -> Side:
    """An agent that was just approved."""
    made = Side()
    made.delivery.greet("192.0.2.17")
    made.delivery.on_handshake(approved(limits={"rounds": 8}))
    return made


def test_every_message_says_when_it_left_by_our_clock() -> None:
    """So the server learns how far that clock is off; built at the moment it goes out, also when it goes again."""
    ring, wall = Ring(lambda: 0.0), iter((5_000, 6_000, 7_000))
    identity = Handshake(passphrase="pass", hostname="probe-1", ip_address="192.0.2.1", version="1")
    delivery = Delivery(ring, identity, lambda _targets: None, wall_ms=lambda: next(wall))
    ring.append(started_ms=1, revision=1, samples=array("i", [1]), disturbed=False)

    hello = delivery.greet()
    delivery.on_handshake(approved())
    first = delivery.next_report(0.0)
    assert first is not None
    delivery.on_ack(first.token, {"ok": False, "code": "E_SERVER", "message": "", "retry_after_s": 1}, 0.0)
    again = delivery.next_report(2.0)

    assert again is not None
    assert (hello.sent_ms, first.payload["sent"], again.payload["sent"]) == (5_000, 6_000, 7_000)


def test_the_handshake_says_who_we_are_and_where_we_stand() -> None:
    """Configured facts, the address of the connection, epoch and next number."""
    side = Side()
    side.measure(4)

    message = side.delivery.greet("192.0.2.17")

    assert (message.passphrase, message.hostname, message.ip_address) == ("pass", "probe-1", "192.0.2.17")
    assert (message.epoch, message.next_seq) == (side.ring.epoch, 5)


def test_nothing_is_sent_before_approval() -> None:
    """Rounds wait in the ring while pending and on hold, and go out once approved."""
    side = Side()
    side.measure(2)
    side.delivery.greet()
    assert side.delivery.next_report(0) is None
    for word in ("pending", "hold"):
        side.delivery.on_handshake({"state": word, "retry_after_s": 60})
        assert side.delivery.next_report(0) is None

    side.delivery.on_handshake(approved())

    assert [r.seq for r in side.report()[1].rounds] == [1, 2]


def test_an_agent_approved_anew_sends_nothing_of_its_former_self(side: Side) -> None:
    """Deleted and approved under another id: revision 1 of the new agent means other targets than that of the old."""
    side.measure(3)
    side.delivery.lost()
    side.delivery.greet()
    side.delivery.on_handshake(approved(agent_id="another"))
    assert side.delivery.next_report(side.now) is None

    side.measure(1)

    _, report = side.report()
    assert ([r.seq for r in report.rounds], report.gap) == ([4], (1, 3, "expired"))


def test_one_report_is_in_flight(side: Side) -> None:
    """The next goes out only after the acknowledgement."""
    side.measure(1)
    token, _ = side.report()
    side.measure(1)
    assert side.delivery.next_report(side.now) is None

    assert side.ack(token, ok=True, upto=1, dup=0)

    assert [r.seq for r in side.report()[1].rounds] == [2]


def test_what_was_in_flight_is_sent_again_after_a_cut(side: Side) -> None:
    """The same round from upto+1, and the acknowledgement of the old connection counts for nothing."""
    side.measure(2)
    token, _ = side.report()
    side.delivery.lost()
    assert side.ack(token, ok=True, upto=2, dup=0)
    side.delivery.greet()
    side.delivery.on_handshake(approved(upto=1))

    assert [r.seq for r in side.report()[1].rounds] == [2]


def test_an_old_acknowledgement_does_not_settle_a_new_report(side: Side) -> None:
    """The answer to a report of an earlier connection comes while the next one is in flight."""
    side.measure(3)
    stale, _ = side.report()
    side.delivery.lost()
    assert side.delivery.in_flight is None
    side.delivery.greet()
    side.delivery.on_handshake(approved(upto=0))
    token, _ = side.report()

    side.ack(stale, ok=True, upto=3)

    assert side.delivery.in_flight == token
    assert side.ring.waiting() == 3


def test_a_new_epoch_drops_what_is_in_flight(side: Side) -> None:
    """An acknowledgement in the old numbers must not settle rounds of the new ones."""
    side.measure(2)
    token, _ = side.report()
    side.delivery.on_handshake(approved(upto=40))
    side.ack(token, ok=True, upto=2)

    assert [(r.seq, r.started_ms) for r in side.report()[1].rounds] == [(1, 1), (2, 2)]


def test_a_restored_server_gets_again_what_it_lost(side: Side) -> None:
    """upto lower than acknowledged before: go on from there."""
    side.measure(6)
    token, _ = side.report()
    side.ack(token, ok=True, upto=6)
    side.delivery.on_handshake(approved(upto=2))

    assert [r.seq for r in side.report()[1].rounds] == [3, 4, 5, 6]


def test_expired_rounds_are_declared(side: Side) -> None:
    """A gap with its bounds and its reason goes before the first round that is left."""
    side.measure(3)
    side.now += 3600
    side.measure(1)

    _, report = side.report()

    assert report.gap == (1, 3, "expired")
    assert [r.seq for r in report.rounds] == [4]


def test_a_sequence_gap_rewinds(side: Side) -> None:
    """E_SEQ_GAP names what the server expects: sent next, at once."""
    side.measure(4)
    token, _ = side.report()
    side.ack(token, ok=True, upto=4)
    side.measure(1)
    token, _ = side.report()

    assert side.ack(token, ok=False, code="E_SEQ_GAP", message="", expected=3)

    assert [r.seq for r in side.report()[1].rounds] == [3, 4, 5]


def test_a_server_that_repeats_its_demand_is_not_flooded(side: Side) -> None:
    """E_SEQ_GAP for exactly what we sent: wait, do not spin."""
    side.measure(1)
    token, _ = side.report()
    side.ack(token, ok=False, code="E_SEQ_GAP", message="", expected=1)

    assert side.delivery.next_report(side.now) is None
    assert side.delivery.ready_in(side.now) == pytest.approx(5.0)


def test_a_busy_server_is_given_time(side: Side) -> None:
    """retry_after_s is kept, and the report goes out again unchanged."""
    side.measure(1)
    token, first = side.report()
    assert side.ack(token, ok=False, code="E_SERVER", message="disk full", retry_after_s=7)
    side.now += 6.9
    assert side.delivery.next_report(side.now) is None
    side.now += 0.2

    assert side.report()[1] == first


@pytest.mark.parametrize("code", ["E_TARGET", "E_TIME", "E_TOO_LARGE", "E_BATCH", "E_MALFORMED"])
def test_a_poisoned_round_is_found_and_given_up_alone(side: Side, code: str) -> None:
    """The report is halved until the guilty round stands alone; it becomes a gap with the code, all others arrive."""
    side.measure(8)
    taken: list[int] = []
    gaps: list[object] = []
    for _ in range(30):
        outgoing = side.delivery.next_report(side.now)
        if outgoing is None:
            break
        report = codec.decode_report(outgoing.payload)
        seqs = [r.seq for r in report.rounds]
        if 6 in seqs:
            side.ack(outgoing.token, ok=False, code=code, message="no")
            continue
        taken += seqs
        gaps += [report.gap] if report.gap else []
        side.ack(outgoing.token, ok=True, upto=seqs[-1])

    assert taken == [1, 2, 3, 4, 5, 7, 8]
    assert gaps == [(6, 6, code)]
    assert side.delivery.counts.given_up == 1


@pytest.mark.parametrize(
    "body", [None, {}, {"ok": 1}, {"ok": True}, {"ok": True, "upto": "7"}, {"ok": True, "upto": 99}]
)
def test_a_senseless_acknowledgement_forgets_nothing(side: Side, body: object) -> None:
    """It is counted, a new handshake is asked for, and the round is still there."""
    side.measure(1)
    token, first = side.report()

    assert side.delivery.on_ack(token, body, side.now) is False

    side.now += 6
    side.delivery.greet()
    side.delivery.on_handshake(approved())
    assert side.report()[1] == first
    assert side.delivery.counts.nonsense == 1


def test_a_server_that_knows_our_future_starts_a_new_epoch(side: Side) -> None:
    """A restored snapshot of this host must not have its fresh rounds taken for old ones."""
    side.measure(2)
    before = side.ring.epoch
    side.delivery.on_handshake(approved(upto=40))

    _, report = side.report()

    assert report.epoch == side.ring.epoch != before
    assert [(r.seq, r.started_ms) for r in report.rounds] == [(1, 1), (2, 2)]


def test_a_word_about_the_old_epoch_says_nothing_about_the_new_one(side: Side) -> None:
    """The server's push still tells where the epoch of the handshake stands; until the next one that is to be asked."""
    side.measure(2)
    side.delivery.on_handshake(approved(upto=40))
    assert side.delivery.must_greet

    side.delivery.on_handshake(approved(upto=40))

    assert [r.seq for r in side.report()[1].rounds] == [1, 2]
    side.delivery.greet()
    side.delivery.on_handshake(approved())
    assert not side.delivery.must_greet


def test_targets_are_taken_once_approved_and_only_ours() -> None:
    """Too early, another agent's, or older than what is in use: refused with a sentence, and nothing changes."""
    side = Side()
    side.delivery.greet()
    early = side.delivery.on_targets(targets())
    side.delivery.on_handshake(approved())
    good = side.delivery.on_targets(targets(5))
    again = side.delivery.on_targets(targets(5))
    older = side.delivery.on_targets(targets(4))
    foreign = side.delivery.on_targets(targets(6, "someone else"))
    broken = side.delivery.on_targets({"agent_id": AGENT})

    assert (early["code"], older["code"], foreign["code"]) == ("E_STATE", "E_TARGET", "E_TARGET")
    assert broken["code"] == "E_MALFORMED"
    assert good == again == {"ok": True, "revision": 5, "refused": []}
    assert older["message"] == "revision 4 is older than 5, which is in use"
    assert [s.revision for s in side.sets] == [5, 5]


def test_it_knows_that_promised_targets_have_not_come(side: Side) -> None:
    """The approval names a revision; until a set of at least that revision is here, something is missing."""
    before = side.delivery.targets_missing
    side.delivery.on_targets(targets(1))
    after = side.delivery.targets_missing
    side.delivery.on_handshake(approved(agent_id="another", targets_rev=0))

    assert (before, after) == (True, False)
    assert not side.delivery.targets_missing, "revision 0 is the server's word for: no set yet"


def test_a_restored_server_may_count_its_revisions_anew(side: Side) -> None:
    """The approval names a lower revision than ours: the server lost its later ones, so its sets are good again."""
    side.delivery.on_targets(targets(9))
    side.delivery.greet()
    side.delivery.on_handshake(approved(targets_rev=3))

    assert side.delivery.on_targets(targets(3))["ok"] is True


@pytest.mark.parametrize(
    ("body", "state", "patience"),
    [
        ({"state": "pending"}, SessionState.PENDING, Patience.SLOW),
        ({"state": "hold"}, SessionState.HOLD, Patience.SLOW),
        ({"state": "blacklisted"}, SessionState.REFUSED, Patience.RARE),
        ({"state": "error", "code": "E_PASSPHRASE"}, SessionState.REFUSED, Patience.RARE),
        ({"state": "error", "code": "E_LEGACY_DISABLED"}, SessionState.REFUSED, Patience.RARE),
        ({"state": "error", "code": "E_PENDING_FULL"}, SessionState.REFUSED, Patience.SLOW),
        ({"state": "error", "code": "E_SERVER"}, SessionState.REFUSED, Patience.SOON),
        ({"state": "error", "code": "E_UNHEARD_OF"}, SessionState.REFUSED, Patience.SOON),
    ],
)
def test_each_word_of_the_server_has_its_patience(body: Json, state: SessionState, patience: Patience) -> None:
    """docs/wire.md's table of codes, as the agent acts on it."""
    side = Side()
    side.delivery.greet()

    answer = side.delivery.on_handshake(body)

    assert (answer.state, answer.patience) == (state, patience)


@pytest.mark.parametrize("body", [None, [], {}, {"state": "fine"}, {"state": 1}, {"state": "approved"}, approved(-1)])
def test_a_senseless_handshake_answer_changes_nothing(body: object) -> None:
    """WireError, counted, and still waiting for an answer."""
    side = Side()
    side.delivery.greet()
    with pytest.raises(WireError):
        side.delivery.on_handshake(body)

    assert side.delivery.state is SessionState.GREETING
    assert side.delivery.counts.nonsense == 1


def test_limits_of_the_server_are_kept_but_never_above_the_contract(side: Side) -> None:
    """Eight rounds as granted; nonsense falls back to the contract's own numbers."""
    side.measure(100)
    _, report = side.report()
    side.delivery.greet()
    side.delivery.on_handshake(approved(limits={"rounds": 10**9, "samples": "x", "bytes": -5}))

    assert len(report.rounds) == 8
    assert len(side.report()[1].rounds) == 64


class Line(RuleBasedStateMachine):
    """An agent and a server that commits by the rules of the contract, joined by a line that cuts and forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.side = Side()
        self.committed: list[int] = []
        self.wire: tuple[int, Json] | None = None

    @initialize()
    def begin(self) -> None:
        self.reconnect()

    @rule(count=st.integers(1, 20))
    def measure(self, count: int) -> None:
        self.side.measure(count)

    @rule()
    @precondition(lambda self: self.wire is None)
    def send(self) -> None:
        outgoing = self.side.delivery.next_report(self.side.now)
        if outgoing is not None:
            self.wire = (outgoing.token, outgoing.payload)

    def commit(self, payload: Json) -> Json:
        report = codec.decode_report(payload)
        upto = self.committed[-1] if self.committed else 0
        if report.rounds[0].seq > upto + 1:
            return {"ok": False, "code": "E_SEQ_GAP", "message": "", "expected": upto + 1}
        fresh = [r for r in report.rounds if r.seq > upto]
        assert all(r.started_ms == r.seq == r.samples[0] for r in fresh)
        self.committed += [r.seq for r in fresh]
        return {"ok": True, "upto": self.committed[-1], "dup": len(report.rounds) - len(fresh)}

    @rule(repeat=st.integers(1, 2))
    @precondition(lambda self: self.wire is not None)
    def arrive(self, repeat: int) -> None:
        """The report arrives, perhaps twice; each copy is acknowledged."""
        assert self.wire is not None
        (token, payload), self.wire = self.wire, None
        for _ in range(repeat):
            self.side.delivery.on_ack(token, self.commit(payload), self.side.now)

    @rule(heard=st.booleans())
    @precondition(lambda self: self.wire is not None)
    def cut(self, heard: bool) -> None:
        """The line breaks with a report on it: before the server had it, or before the agent heard so."""
        assert self.wire is not None
        (token, payload), self.wire = self.wire, None
        body = self.commit(payload) if heard else {}
        self.reconnect()
        self.side.delivery.on_ack(token, body or {"ok": True, "upto": 0}, self.side.now)

    @rule(keep=st.floats(0, 1))
    @precondition(lambda self: self.wire is None)
    def restore(self, keep: float) -> None:
        """The server comes back from a backup."""
        self.committed = self.committed[: int(len(self.committed) * keep)]
        self.reconnect()

    @rule()
    @precondition(lambda self: self.wire is not None)
    def busy(self) -> None:
        assert self.wire is not None
        (token, _), self.wire = self.wire, None
        self.side.ack(token, ok=False, code="E_SERVER", message="", retry_after_s=3)
        self.side.now += 10

    def reconnect(self) -> None:
        self.side.delivery.lost()
        self.side.delivery.greet()
        self.side.delivery.on_handshake(approved(upto=self.committed[-1] if self.committed else 0))

    @invariant()
    def nothing_missing_nothing_twice(self) -> None:
        assert self.committed == list(range(1, len(self.committed) + 1))

    def teardown(self) -> None:
        """At last the line holds: everything measured arrives."""
        if self.wire is not None:
            self.arrive(1)
        for _ in range(200):
            self.send()
            if self.wire is None:
                break
            self.arrive(1)
        assert self.committed == list(range(1, self.side.ring.last_seq + 1))


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_server_is_told_what_this_host_refuses_to_ping(side: Side) -> None:
    """The set is taken all the same; the refused targets stand in the acknowledgement with their reason."""
    side.refused = {2: "E_POLICY_MULTICAST"}
    body = targets(revision=7)
    body["targets"] = [
        {"id": 1, "name": "fine", "address": "192.0.2.1"},
        {"id": 2, "name": "many", "address": "224.0.0.1"},
    ]

    answer = side.delivery.on_targets(body)

    assert answer == {"ok": True, "revision": 7, "refused": [[2, "E_POLICY_MULTICAST"]]}
    assert len(side.sets[-1].targets) == 2


def test_thousands_of_refusals_fit_into_one_acknowledgement(side: Side) -> None:
    """A message above 64 KiB would end the connection at every set: the first 500 are named, all are counted."""
    side.refused = dict.fromkeys(range(12_000), "E_POLICY_NOT_ALLOWED")

    answer = side.delivery.on_targets(targets(revision=7))

    assert len(answer["refused"]) == 500
    assert answer["refused_count"] == 12_000
    assert len(json.dumps(answer)) < 32_768


def test_a_name_that_came_to_be_refused_is_told_once_with_the_next_report(side: Side) -> None:
    """Again until the report has arrived, and once more when it is no longer so; never under another revision."""
    side.delivery.on_targets(targets(revision=7))
    side.measure()
    side.names = (6, {3: "E_POLICY_LOOPBACK"})
    token, of_another_set = side.report()
    side.ack(token, ok=True, upto=1)
    side.names = (7, {3: "E_POLICY_LOOPBACK"})
    side.measure()
    token, first = side.report()
    side.ack(token, ok=False, code="E_SERVER", message="", retry_after_s=0)
    side.now += 10
    token, again = side.report()
    side.ack(token, ok=True, upto=2)
    side.measure()
    token, after = side.report()
    side.ack(token, ok=True, upto=3)
    side.names = (7, {})
    side.measure()
    _, moved_back = side.report()

    told = [report.refused for report in (of_another_set, first, again, after, moved_back)]
    assert told == [None, ((3, "E_POLICY_LOOPBACK"),), ((3, "E_POLICY_LOOPBACK"),), None, ()]


def test_a_full_report_still_fits_with_its_refusals(side: Side) -> None:
    """The largest round there may be, and as many refused names as are told."""
    side.delivery.on_targets(targets(revision=7))
    side.names = (7, dict.fromkeys(range(2**31, 2**31 + 100), "E_POLICY_" + "X" * 30))
    column = array("i", [60_000_000]) * MAX_SAMPLES_PER_REPORT
    side.ring.append(started_ms=2**41, revision=2**31, samples=column, disturbed=True)
    outgoing = side.delivery.next_report(side.now)

    assert outgoing is not None
    event = json.dumps(["monitoring_data", outgoing.payload], separators=(",", ":"))
    assert len(outgoing.payload["refused"]) == 20
    assert len(event) + len("42/agent,12345678") < MAX_MESSAGE_BYTES
