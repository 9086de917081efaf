"""The engine over real ICMP sockets: loopback, and namespaces whose routes refuse, drop or lie."""

from __future__ import annotations

import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest

from pingmon_agent.engine import EchoEngine
from pingmon_agent.icmp import NoPermissionError
from pingmon_agent.plan import STANDARD, Plan, Probed
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


def test_a_small_receive_buffer_loses_nothing(engine: EchoEngine) -> None:
    """Where the kernel grants little, the engine reads more often instead of losing replies."""
    lane = engine._lanes[4, STANDARD]
    lane.socket._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    lane._most_unread = lane.socket._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 1280

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 3000, window_s=0.0, timeout_s=1))

    assert min(probed.samples) >= 0
    assert engine.tally.overflow == 0


def test_an_address_this_host_cannot_use_harms_no_other(engine: EchoEngine) -> None:
    """A zone without interface is not sent; the target beside it answers."""
    samples = engine.run_round(Plan(addresses=["fe80::1%nosuch0", "127.0.0.1"], window_s=0, timeout_s=1)).samples

    assert samples[0] == Outcome.NOT_SENT
    assert samples[1] >= 0


def test_a_ping_socket_with_a_default_buffer_loses_nothing(
    make_namespace: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what the default net.core.rmem_max grants: more and smaller ticks, read at each, and no loss."""
    monkeypatch.setattr("pingmon_agent.icmp._RCVBUF", 106_496)
    here = make_namespace()
    here.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    addresses = [f"127.1.{n >> 8}.{n & 255}" for n in range(1, 5001)]

    def work() -> Probed:
        engine = EchoEngine()
        try:
            return engine.run_round(Plan(addresses=addresses, window_s=0.5, timeout_s=1))
        finally:
            engine.close()

    probed = here.run(work, unprivileged=True)

    assert min(probed.samples) >= 0
    assert not probed.disturbed


def test_packets_dropped_by_the_kernel_are_counted_and_disturb(engine: EchoEngine) -> None:
    """A receive buffer that overflows is our fault: the kernel's count says so, and nothing is called lost."""
    engine._lanes[4, STANDARD].socket._sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000
    )  # and nobody told the lane

    probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 200, window_s=0.0, timeout_s=0.1))

    assert engine.tally.overflow > 100
    assert probed.disturbed
    assert Outcome.NOT_PROBED in probed.samples
    assert Outcome.TIMEOUT not in probed.samples


def test_a_step_of_the_clock_voids_the_round(engine: EchoEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the wall clock is set during a round, no RTT of it is believed and the round is disturbed."""
    offsets = iter([0, 3_000_000_000])
    monkeypatch.setattr("pingmon_agent.engine._clock_offset_ns", lambda: next(offsets))

    probed = engine.run_round(Plan(addresses=["127.0.0.1"], window_s=0, timeout_s=1))

    assert probed.samples.tolist() == [Outcome.NOT_PROBED]
    assert probed.disturbed
    assert engine.tally.clock_steps == 1


def test_other_pings_on_the_host_do_not_disturb(engine: EchoEngine) -> None:
    """Replies to a neighbour's pings are dropped by the kernel's filter before they reach our raw socket."""
    other = EchoEngine()
    try:
        other.run_round(Plan(addresses=["127.0.0.1"] * 50, window_s=0, timeout_s=1))
        probed = engine.run_round(Plan(addresses=["127.0.0.1"] * 50, window_s=0, timeout_s=1))
    finally:
        other.close()

    assert min(probed.samples) >= 0
    assert engine.tally.duplicates == 0
    assert engine.tally.foreign == 0


def test_two_agents_with_one_id_do_not_take_each_others_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance the same id on one host: each hears the other's replies, and counts them as foreign."""
    monkeypatch.setattr("pingmon_agent.icmp.secrets.randbelow", lambda limit: 4711)
    one, other = EchoEngine(), EchoEngine()
    plan = Plan(addresses=["127.0.0.1"] * 50 + ["::1"] * 50, window_s=0, timeout_s=1)
    try:
        rounds = [engine.run_round(plan) for _ in range(2) for engine in (one, other)]
    finally:
        one.close()
        other.close()

    assert all(min(probed.samples) >= 0 for probed in rounds)
    assert (one.tally.foreign, one.tally.duplicates, one.tally.corrupt) == (100, 0, 0)
    assert other.tally.foreign == 200


def test_more_targets_than_sequence_numbers_are_measured_with_one_id(engine: EchoEngine) -> None:
    """66,000 targets in one round: no reply is given to another, none is lost."""
    addresses = [f"127.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(1, 66_001)]

    probed = engine.run_round(Plan(addresses=addresses, window_s=1.0, timeout_s=2))

    assert len(set(addresses)) == 66_000
    assert min(probed.samples) >= 0
    assert (engine.tally.duplicates, engine.tally.wrong_source, engine.tally.corrupt) == (0, 0, 0)
