"""The engine over real ICMP sockets: loopback, and namespaces whose routes refuse, drop or lie."""

from __future__ import annotations

import errno
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingmon_agent.engine import EchoEngine
from pingmon_agent.icmp import Arrival, EchoSocket, Kind, NoPermissionError
from pingmon_agent.plan import Plan, Probed
from pingmon_agent.wire.contract import Outcome

from .namespaces import Namespace, connect

pytestmark = pytest.mark.root
Make = Callable[[], Namespace]


@pytest.fixture
def engine() -> Iterator[EchoEngine]:
    """An engine in the namespace of the test run."""
    made = EchoEngine()
    yield made
    made.close()


def one_round(*addresses: str | None, timeout_s: float = 0.5) -> tuple[list[int], EchoEngine]:
    """Samples of one round by a fresh engine, which is closed."""
    made = EchoEngine()
    try:
        return made.run_round(Plan(addresses=addresses, window_s=0.0, timeout_s=timeout_s)).samples.tolist(), made
    finally:
        made.close()


def test_both_families_answer_on_loopback_within_the_truth(engine: EchoEngine) -> None:
    """Every loopback address of both families answers, and no RTT is off by more than 100 us once caches are warm."""
    plan = Plan(addresses=["127.0.0.1", "127.0.0.2", "::1", "127.0.0.1"], window_s=0.1, timeout_s=1)
    engine.run_round(plan)

    best = [min(column) for column in zip(*(engine.run_round(plan).samples for _ in range(5)), strict=True)]

    assert all(0 <= rtt < 100 for rtt in best), best
    assert engine.tally.sent == 24
    assert engine.mode == "raw"
    assert engine.families == (4, 6)


def test_a_name_without_address_is_unresolved_and_harms_no_other(engine: EchoEngine) -> None:
    """Outcomes come in the order of the plan, whatever its neighbours did."""
    samples = engine.run_round(Plan(addresses=[None, "127.0.0.1", None], window_s=0, timeout_s=1)).samples

    assert [samples[0], samples[2]] == [Outcome.UNRESOLVED, Outcome.UNRESOLVED]
    assert samples[1] >= 0


def test_no_targets_is_no_work(engine: EchoEngine) -> None:
    """An empty plan gives an empty column at once."""
    begun = time.monotonic()

    assert engine.run_round(Plan(addresses=[], window_s=1, timeout_s=1)).samples == array("i")
    assert time.monotonic() - begun < 0.5


def test_sends_are_spread_over_the_window(engine: EchoEngine) -> None:
    """A round with a window of 0.4 s ends after about that long, and no earlier."""
    begun = time.monotonic()

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 40, window_s=0.4, timeout_s=1))

    assert 0.3 <= time.monotonic() - begun < 0.9
    assert min(probed.samples) >= 0


def test_many_targets_lose_nothing(engine: EchoEngine) -> None:
    """3,000 probes in one burst are all answered: the receive buffer and the drains keep up."""
    addresses = [f"127.1.{n >> 8}.{n & 255}" for n in range(1, 3001)]

    probed = engine.run_round(Plan(addresses=addresses, window_s=0.0, timeout_s=1))

    assert min(probed.samples) >= 0
    assert engine.tally.overflow == 0


def test_a_stop_ends_the_round_early_and_reports_no_loss() -> None:
    """A probe that was not waited for is not probed, never a timeout."""
    stop = threading.Event()
    engine = EchoEngine(stop)
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 10, window_s=5.0, timeout_s=5))
    engine.close()

    assert time.monotonic() - begun < 1
    assert probed.samples[-1] == Outcome.NOT_PROBED
    assert Outcome.TIMEOUT not in probed.samples
    assert probed.disturbed


def routed(make: Make) -> Namespace:
    """A namespace behind a router (10.77.1.2) that has good and bad routes."""
    here, router = make(), make()
    connect(here, router, "10.77.1")
    here.ip("route", "add", "default", "via", "10.77.1.2")
    router.sysctl("net.ipv4.ip_forward", "1")
    router.ip("addr", "add", "10.77.9.1/32", "dev", "lo")
    router.ip("route", "add", "unreachable", "10.77.2.0/24")
    router.ip("route", "add", "blackhole", "10.77.3.0/24")
    return here


@pytest.mark.parametrize("unprivileged", [False, True], ids=["raw", "dgram"])
def test_each_outcome_has_its_name(make_namespace: Make, unprivileged: bool) -> None:
    """Reply, unreachable (a router says so), timeout (a router drops) and four refusals by the kernel, over both kinds
    of socket."""
    here = routed(make_namespace)
    here.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    for kind, net in (("prohibit", 4), ("blackhole", 5), ("unreachable", 6)):
        here.ip("route", "add", kind, f"10.77.{net}.0/24")

    addresses = ["10.77.9.1", "10.77.2.1", "10.77.3.1", "10.77.4.1", "10.77.5.1", "10.77.6.1", "2001:db8::1"]
    samples, engine = here.run(lambda: one_round(*addresses), unprivileged=unprivileged)

    assert engine.mode == ("dgram" if unprivileged else "raw")
    assert 0 <= samples[0] < 100_000
    assert samples[1:] == [Outcome.UNREACHABLE, Outcome.TIMEOUT] + [Outcome.NOT_SENT] * 4
    assert sum(engine.tally.send_errors.values()) == 4


def test_dgram_sockets_measure_as_truly_as_raw_ones(make_namespace: Make) -> None:
    """A process without any capability reads the same RTT on loopback, both families."""
    here = make_namespace()
    here.sysctl("net.ipv4.ping_group_range", "0 2147483647")

    def best() -> list[int]:
        engine = EchoEngine()
        plan = Plan(addresses=["127.0.0.1", "::1"], window_s=0, timeout_s=1)
        rounds = [engine.run_round(plan).samples for _ in range(5)]
        engine.close()
        return [min(column) for column in zip(*rounds, strict=True)]

    assert all(0 <= rtt < 100 for rtt in here.run(best, unprivileged=True))


def test_no_permission_is_one_sentence_with_the_cure(make_namespace: Make) -> None:
    """Neither kind of socket allowed: the refusal names the capability and the sysctl."""
    here = make_namespace()
    here.sysctl("net.ipv4.ping_group_range", "1 0")

    with pytest.raises(NoPermissionError, match=r"CAP_NET_RAW.*net\.ipv4\.ping_group_range"):
        here.run(EchoEngine, unprivileged=True)


def test_a_neighbour_that_is_not_there_is_unreachable(make_namespace: Make) -> None:
    """The kernel's own "no such neighbour" comes back as unreachable, not as a timeout."""
    here, other = make_namespace(), make_namespace()
    connect(here, other, "10.77.1")

    samples, _ = here.run(lambda: one_round("10.77.1.99", timeout_s=4.5))

    assert samples == [Outcome.UNREACHABLE]


@pytest.mark.parametrize("unprivileged", [False, True], ids=["raw", "dgram"])
def test_each_outcome_has_its_name_over_ipv6(make_namespace: Make, unprivileged: bool) -> None:
    """The same behind an IPv6 router: reply, unreachable, timeout, not sent."""
    here, router = make_namespace(), make_namespace()
    connect(here, router, "10.77.1", "2001:db8:77")
    here.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    here.ip("-6", "route", "add", "default", "via", "2001:db8:77::2")
    here.ip("-6", "route", "add", "prohibit", "2001:db8:4::/48")
    router.sysctl("net.ipv6.conf.all.forwarding", "1")
    router.ip("-6", "addr", "add", "2001:db8:9::1/128", "dev", "lo")
    router.ip("-6", "route", "add", "unreachable", "2001:db8:2::/48")
    router.ip("-6", "route", "add", "blackhole", "2001:db8:3::/48")

    here.run(lambda: one_round("2001:db8:77::2", timeout_s=5))  # a new link needs a second to find its neighbour
    addresses = ["2001:db8:9::1", "2001:db8:2::1", "2001:db8:3::1", "2001:db8:4::1"]
    samples, engine = here.run(lambda: one_round(*addresses), unprivileged=unprivileged)

    assert engine.mode == ("dgram" if unprivileged else "raw")
    assert 0 <= samples[0] < 100_000
    assert samples[1:] == [Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.NOT_SENT]


def test_ipv6_unreachable_is_told_from_loss(make_namespace: Make) -> None:
    """A route that the kernel refuses is not sent; IPv6 loopback beside it still answers."""
    here = make_namespace()
    here.ip("-6", "route", "add", "prohibit", "2001:db8:1::/48")

    samples, _ = here.run(lambda: one_round("2001:db8:1::1", "::1"))

    assert samples[0] == Outcome.NOT_SENT
    assert samples[1] >= 0


def test_without_ipv6_only_its_targets_suffer(make_namespace: Make) -> None:
    """With IPv6 switched off, an IPv6 target is not sent and IPv4 goes on."""
    here = make_namespace()
    here.sysctl("net.ipv6.conf.all.disable_ipv6", "1")

    samples, _ = here.run(lambda: one_round("::1", "127.0.0.1"))

    assert samples[0] == Outcome.NOT_SENT
    assert samples[1] >= 0


class _Answers:
    """A socket that answers by the test's script: takes the place of one lane's socket."""

    raw, version, overflow, buffer_packets = True, 4, 0, 1000

    def __init__(self, real: EchoSocket, script: Callable[[int, int, int], list[Arrival]]) -> None:
        self._real, self._script = real, script
        self._arrivals: list[Arrival] = []

    def packet(self, sequence: int, round_no: int, index: int) -> bytes:
        self._arrivals += self._script(sequence, round_no, index)
        return b""

    def send(self, packet: bytes, destination: object) -> int:
        return 0

    def drain(self) -> list[Arrival]:
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def close(self) -> None:
        self._real.close()


def scripted(engine: EchoEngine, script: Callable[[int, int, int], list[Arrival]], timeout_s: float = 0.1) -> Probed:
    """One round with one target, 127.0.0.1, whose answers the script makes."""
    lane = engine._lanes[4]
    if not isinstance(lane.socket, _Answers):
        lane.socket = _Answers(lane.socket, script)  # type: ignore[assignment]
    lane.socket._script = script  # type: ignore[attr-defined]
    return engine.run_round(Plan(addresses=["127.0.0.1"], window_s=0, timeout_s=timeout_s))


def reply(sequence: int, round_no: int, index: int, *, after_us: int = 50, address: str = "127.0.0.1") -> Arrival:
    """A good reply."""
    return Arrival(Kind.REPLY, time.time_ns() + after_us * 1000, address, sequence, round_no, index)


def test_duplicates_are_counted_and_the_first_wins(engine: EchoEngine) -> None:
    """Two copies of one reply in one batch are one answer and one duplicate."""
    probed = scripted(engine, lambda *a: [reply(*a, after_us=100), reply(*a, after_us=9000)])

    assert 0 <= probed.samples[0] < 1000
    assert engine.tally.duplicates == 1


def test_a_reply_from_another_address_is_foreign(engine: EchoEngine) -> None:
    """Asked .1, answered by .2: no answer, and counted."""
    probed = scripted(engine, lambda *a: [reply(*a, address="127.0.0.2")])

    assert probed.samples.tolist() == [Outcome.TIMEOUT]
    assert engine.tally.foreign == 1


def test_a_late_reply_is_never_matched_to_a_newer_probe(engine: EchoEngine) -> None:
    """A reply of the round before is counted as late, and the new probe still times out."""
    scripted(engine, lambda *a: [])
    probed = scripted(engine, lambda s, r, i: [reply(s, r - 1, i)])

    assert probed.samples.tolist() == [Outcome.TIMEOUT]
    assert (engine.tally.late, engine.tally.duplicates) == (1, 0)


def test_a_second_copy_of_an_old_reply_is_a_duplicate_not_late(engine: EchoEngine) -> None:
    """What was answered in time once is a duplicate when it comes again a round later."""
    scripted(engine, lambda *a: [reply(*a)])
    scripted(engine, lambda s, r, i: [reply(s, r - 1, i), reply(s, r, i)])

    assert (engine.tally.late, engine.tally.duplicates) == (0, 1)


def test_a_reply_stamped_after_the_timeout_is_a_timeout(engine: EchoEngine) -> None:
    """Read in time but stamped too late: lost, and counted as late."""
    probed = scripted(engine, lambda *a: [reply(*a, after_us=200_000)])

    assert probed.samples.tolist() == [Outcome.TIMEOUT]
    assert engine.tally.late == 1


def test_an_error_that_quotes_only_a_sequence_number_is_matched_by_round(engine: EchoEngine) -> None:
    """Eight quoted bytes are enough for this round's probe, and never hit with the number of another round."""
    now = scripted(engine, lambda s, r, i: [Arrival(Kind.ERROR, 0, "127.0.0.1", s)])
    old = scripted(engine, lambda s, r, i: [Arrival(Kind.ERROR, 0, "127.0.0.1", s ^ 0x5A5A)])

    assert now.samples.tolist() == [Outcome.UNREACHABLE]
    assert old.samples.tolist() == [Outcome.TIMEOUT]


def test_an_error_of_the_round_before_hits_nobody(engine: EchoEngine) -> None:
    """The same target's sequence number of a round ago, quoted late and short, is no verdict on this round."""
    numbers: list[int] = []
    scripted(engine, lambda s, r, i: numbers.append(s) or [])
    probed = scripted(engine, lambda s, r, i: [Arrival(Kind.ERROR, 0, "127.0.0.1", numbers[0])])

    assert probed.samples.tolist() == [Outcome.TIMEOUT]


def test_a_small_receive_buffer_loses_nothing(engine: EchoEngine) -> None:
    """Where the kernel grants little, the engine reads more often instead of losing replies."""
    echo = engine._lanes[4].socket
    echo._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    echo.buffer_packets = echo._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2048

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 3000, window_s=0.0, timeout_s=1))

    assert min(probed.samples) >= 0
    assert engine.tally.overflow == 0


def test_a_stop_while_waiting_leaves_no_timeouts() -> None:
    """Stopped before its time was up, a probe without answer is not probed."""
    stop = threading.Event()
    engine = EchoEngine(stop)
    threading.Timer(0.1, stop.set).start()

    probed = scripted(engine, lambda *a: [], timeout_s=5)
    engine.close()

    assert probed.samples.tolist() == [Outcome.NOT_PROBED]


def test_an_error_after_the_reply_changes_nothing(engine: EchoEngine) -> None:
    """The target did answer; what a router says later is no verdict."""
    probed = scripted(engine, lambda s, r, i: [reply(s, r, i), Arrival(Kind.ERROR, 0, "127.0.0.1", s)])

    assert probed.samples[0] >= 0


def test_an_address_this_host_cannot_use_harms_no_other(engine: EchoEngine) -> None:
    """A zone without interface is not sent; the target beside it answers."""
    samples = engine.run_round(Plan(addresses=["fe80::1%nosuch0", "127.0.0.1"], window_s=0, timeout_s=1)).samples

    assert samples[0] == Outcome.NOT_SENT
    assert samples[1] >= 0


def test_a_full_send_buffer_is_tried_again_in_the_same_round(engine: EchoEngine) -> None:
    """ENOBUFS is put off to the next tick, not a result; only if it lasts is the probe not sent."""
    refusals = iter([errno.ENOBUFS, errno.EAGAIN])
    lane = engine._lanes[4]
    real = lane.socket.send
    lane.socket.send = lambda packet, to: next(refusals, 0) or real(packet, to)  # type: ignore[method-assign]
    patient = engine.run_round(Plan(addresses=["127.0.0.1"], window_s=0, timeout_s=1)).samples
    lane.socket.send = lambda packet, to: errno.ENOBUFS  # type: ignore[method-assign]
    never = engine.run_round(Plan(addresses=["127.0.0.1"], window_s=0, timeout_s=1)).samples

    assert patient[0] >= 0
    assert never.tolist() == [Outcome.NOT_SENT]
    assert engine.tally.send_errors == {errno.ENOBUFS: 1}


def test_a_reply_after_an_error_wins(engine: EchoEngine) -> None:
    """A router complained but the target did answer: the answer is the truth."""
    probed = scripted(engine, lambda s, r, i: [Arrival(Kind.ERROR, 0, "127.0.0.1", s), reply(s, r, i)])

    assert probed.samples[0] >= 0


def test_packets_dropped_by_the_kernel_are_counted_and_disturb(engine: EchoEngine) -> None:
    """A receive buffer that overflows is our fault: the kernel's count says so, and nothing is called lost."""
    echo = engine._lanes[4].socket
    echo._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000)
    echo.buffer_packets = 10**6  # so that it does not read in time

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 200, window_s=0.0, timeout_s=0.1))

    assert engine.tally.overflow > 100
    assert probed.disturbed
    assert Outcome.NOT_PROBED in probed.samples
    assert Outcome.TIMEOUT not in probed.samples


def test_a_host_that_stalls_between_sends_says_so(engine: EchoEngine) -> None:
    """A tick more than half a second late: losses of this round are no evidence against the network."""

    def stall(sequence: int, round_no: int, index: int) -> list[Arrival]:
        time.sleep(0.7 if index == 0 else 0)
        return [reply(sequence, round_no, index)]

    assert not scripted(engine, lambda *a: [reply(*a)]).disturbed
    engine._lanes[4].socket._script = stall  # type: ignore[attr-defined]
    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 2, window_s=0.1, timeout_s=0.1))

    assert probed.disturbed


def test_a_step_of_the_clock_voids_the_round(engine: EchoEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the wall clock is set during a round, no RTT of it is believed and the round is disturbed."""
    offsets = iter([0, 3_000_000_000])
    monkeypatch.setattr("pingmon_agent.engine._clock_offset_ns", lambda: next(offsets))

    probed = engine.run_round(Plan(addresses=["127.0.0.1"], window_s=0, timeout_s=1))

    assert probed.samples.tolist() == [Outcome.NOT_PROBED]
    assert probed.disturbed
    assert engine.tally.clock_steps == 1


def test_foreign_and_damaged_packets_are_no_answers() -> None:
    """A reply with another id, cookie or padding, or cut short, is foreign; an exact one is ours."""
    sock = EchoSocket(4, b"8 bytes!")
    try:
        good = bytearray(sock.packet(7, 1, 3))
        good[0] = 0
        ip_header = bytes([0x45]) + bytes(19)
        damaged = [bytes(good[:-1])]
        for place in (5, 9, 30, 63):
            broken = bytearray(good)
            broken[place] ^= 1
            damaged.append(bytes(broken))

        seen = sock._from_packet(ip_header + bytes(good), [], "192.0.2.1")
        foreign = [sock._from_packet(ip_header + packet, [], "192.0.2.1").kind for packet in damaged]
    finally:
        sock.close()

    assert (seen.kind, seen.round, seen.index, seen.address) == (Kind.REPLY, 1, 3, "192.0.2.1")
    assert foreign == [Kind.FOREIGN] * 5


@pytest.mark.parametrize("version", [4, 6])
def test_no_packet_can_upset_the_reader(version: int) -> None:
    """Whatever bytes arrive, from the wire or the error queue: foreign or ours, never an exception."""
    sock = EchoSocket(version, b"8 bytes!")
    ours = sock.packet(7, 1, 3)

    @given(
        st.binary(max_size=120)
        | st.tuples(st.binary(max_size=60), st.integers(0, 72)).map(lambda t: t[0] + ours[: t[1]])
    )
    @settings(max_examples=300, deadline=None)
    def read(data: bytes) -> None:
        for raw in (True, False):
            sock.raw = raw
            assert sock._from_packet(data, [], "192.0.2.1").kind in Kind
            assert sock._from_error_queue(data, [], "192.0.2.1").kind in Kind

    try:
        read()
    finally:
        sock.close()


def test_our_checksum_is_right(engine: EchoEngine) -> None:
    """The ones' complement sum over a whole raw ICMPv4 packet is all ones, for any index and round."""
    lane = engine._lanes[4].socket
    for sequence, round_no, index in ((0, 0, 0), (65535, 2**32 - 1, 70_000), (1234, 99_999, 8191)):
        packet = lane.packet(sequence, round_no, index)
        total = sum(int.from_bytes(packet[i : i + 2]) for i in range(0, len(packet), 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)

        assert total == 0xFFFF


def test_transmit_stamps_come_from_the_kernel(engine: EchoEngine) -> None:
    """The error queue brings one stamp per packet sent, for both families."""
    for version, address in ((4, ("127.0.0.1", 0)), (6, ("::1", 0, 0, 0))):
        lane = engine._lanes[version].socket
        before = time.time_ns()
        assert lane.send(lane.packet(1, 2, 3), address) == 0
        time.sleep(0.05)
        seen = {a.kind: a for a in lane.drain()}

        assert set(seen) == {Kind.SENT, Kind.REPLY}
        assert before < seen[Kind.SENT].stamp_ns <= seen[Kind.REPLY].stamp_ns < time.time_ns() - 40_000_000


def test_other_pings_on_the_host_do_not_disturb(engine: EchoEngine) -> None:
    """Replies to a neighbour's pings arrive at a raw socket too, and are no answers of ours."""
    other = EchoEngine()
    try:
        other.run_round(Plan(addresses=["127.0.0.1"] * 50, window_s=0, timeout_s=1))
        probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 50, window_s=0, timeout_s=1))
    finally:
        other.close()

    assert min(probed.samples) >= 0
    assert engine.tally.duplicates == 0
    assert engine.tally.foreign >= 50
