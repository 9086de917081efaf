"""Numbers of the gate and of the limits, on a clock that the test moves."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from pingmon.gate import Bucket, Gate, Line, network_of
from pingmon.services.limits import Allowance, Failures, Talk


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("somewhere", "somewhere"),
    ],
)
def test_a_peer_is_an_address_or_a_64(address: str, peer: str) -> None:
    """An IPv6 host may take any address of its /64, so these count as one."""
    assert network_of(address) == peer


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Ten at once, then one in ten seconds, and never more than ten saved up."""
    bucket = Bucket(0.1, 10, 0)
    assert [bucket.take(0) for _ in range(11)] == [True] * 10 + [False]
    assert [bucket.take(10), bucket.take(10)] == [True, False]
    assert [bucket.take(10_000) for _ in range(11)] == [True] * 10 + [False]


def enter(gate: Gate, address: str) -> Line:
    line = gate.enter(address, lambda: -1)
    assert line is not None
    return line


def test_few_strangers_per_address_and_no_more_of_all() -> None:
    """Who has settled or left counts no more; others are not concerned."""
    gate = Gate(lambda _peer: 2, most=100)
    first, second = enter(gate, "192.0.2.1"), enter(gate, "192.0.2.1")
    assert gate.enter("192.0.2.1", lambda: -1) is None
    enter(gate, "192.0.2.2")
    first.settle()
    third = enter(gate, "192.0.2.1")
    assert gate.enter("192.0.2.1", lambda: -1) is None
    second.ended()
    second.ended()
    enter(gate, "192.0.2.1")
    third.ended()
    first.ended()
    assert (gate.open, gate.strangers, gate.refused) == (2, 2, 2)


def test_of_too_many_strangers_the_oldest_goes() -> None:
    """An attacker with many addresses pushes out himself; who has settled is safe."""
    gate = Gate(lambda _peer: None, most=8)
    settled = enter(gate, "192.0.2.1")
    settled.settle()
    near, far = socket.socketpair()
    with near, far:
        oldest = gate.enter("192.0.2.2", near.fileno)
        assert oldest is not None
        others = [enter(gate, f"192.0.2.{i}") for i in range(3, 7)]
        assert (oldest.cut_off, far.recv(1)) == (True, b"")
    assert [line.cut_off for line in [settled, *others]] == [False] * 5
    assert gate.evicted == 1


def test_the_whole_is_bounded_whoever_comes() -> None:
    """Settled or not: more than the process has files for is turned away."""
    gate = Gate(lambda _peer: None, most=3)
    for line in [enter(gate, "192.0.2.1") for _ in range(3)]:
        line.settle()
    assert gate.enter("192.0.2.9", lambda: -1) is None


def test_a_blocked_address_gets_nothing() -> None:
    """Until its time is over; its open connections stay."""
    gate = Gate(most=10)
    kept = enter(gate, "192.0.2.1")
    gate.block("192.0.2.1", 60)
    assert gate.enter("192.0.2.1", lambda: -1) is None
    assert not kept.cut_off
    gate.block("192.0.2.1", -1)
    enter(gate, "192.0.2.1")


def test_a_line_that_has_ended_cuts_nobody_elses() -> None:
    """Its descriptor may be another connection's by now."""
    gate = Gate(most=10)
    near, far = socket.socketpair()
    with near, far:
        line = gate.enter("192.0.2.1", near.fileno)
        assert line is not None
        line.ended()
        line.cut()
        near.send(b"x")
        assert far.recv(1) == b"x"


ALLOWANCE = Allowance([ip_network("192.0.2.0/24")], [ip_network("127.0.0.0/8")])


def test_nat_addresses_get_more_and_named_ones_all() -> None:
    """5 sockets for a host, 64 for a NAT address, no bound where the operator said so."""
    assert [ALLOWANCE.unknown_sockets(peer) for peer in ("198.51.100.1", "192.0.2.9", "127.0.0.1")] == [5, 64, None]
    assert [ALLOWANCE.connections(peer) for peer in ("198.51.100.1", "192.0.2.9", "127.0.0.1")] == [200, 2560, None]


def test_ten_handshakes_may_fail_and_thirty_are_too_many() -> None:
    """Then one in ten seconds is looked at; who goes on is to be blocked."""
    failures, here = Failures(ALLOWANCE), "198.51.100.1"
    assert failures.exhausted(here, 0) is None
    blocks = [failures.note(here, 0) for _ in range(10)]
    assert failures.exhausted(here, 0) == 10
    assert failures.exhausted("198.51.100.2", 0) is None
    blocks += [failures.note(here, 0) for _ in range(21)]
    assert blocks == [False] * 30 + [True]
    assert failures.exhausted(here, 10) is None
    for _ in range(100):
        failures.note("127.0.0.1", 0)
    assert failures.exhausted("127.0.0.1", 0) is None


def test_failures_of_many_addresses_are_forgotten_in_time() -> None:
    """The memory of them is bounded, also while all of them are fresh."""
    failures = Failures(ALLOWANCE)
    for i in range(10_050):
        failures.note(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 0)
    assert len(failures._peers) <= 10_000


def test_talk_is_five_a_second_and_progress_costs_a_tenth() -> None:
    """Twenty at once; a committed report leaves room for nine more; ten times too much is hopeless."""
    talk = Talk(0)
    assert [talk.hear(0) for _ in range(21)] == [True] * 20 + [False]
    assert [talk.hear(1) for _ in range(6)] == [True] * 5 + [False]
    assert [talk.hopeless(1) for _ in range(201)] == [False] * 200 + [True]
    good = Talk(0)
    heard = 0
    while good.hear(0):
        good.progress()
        heard += 1
    assert 190 <= heard <= 200
