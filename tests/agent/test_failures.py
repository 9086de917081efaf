"""The failure table of docs/probing.md, row by row: real sockets of both kinds against a responder that misbehaves."""

from __future__ import annotations

import errno
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from pingmon_agent.cli import main
from pingmon_agent.engine import EchoEngine
from pingmon_agent.icmp import EchoSocket
from pingmon_agent.lane import Lane
from pingmon_agent.mmsg import Outbox
from pingmon_agent.plan import Plan, Probed, Refusal, Tally
from pingmon_agent.wire.contract import Outcome

from .namespaces import Namespace
from .tun import HOST, HOST6, ROUTER, ROUTER6, Answer, Packet, Script
from .wires import Wire

pytestmark = pytest.mark.root


def nft(space: Namespace, rules: str) -> None:
    """Load rules of a packet filter."""
    try:
        subprocess.run(["ip", "netns", "exec", space.name, "nft", rules], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs nft and a kernel with nf_tables")


def after(delay_s: float = 0.0) -> Script:
    """Answers everything rightly, after this long."""
    return lambda packet: [(delay_s, packet.reply())]


def changed(at: int) -> Script:
    """Answers with one bit of byte `at` of the ICMP message turned."""

    def change(icmp: bytearray) -> None:
        icmp[at] ^= 1

    return lambda packet: [(0, packet.reply(change=change))]


@pytest.mark.parametrize("address", [HOST, HOST6])
def test_a_delay_is_measured_as_it_is(wire: Wire, address: str) -> None:
    """A reply held back for 20 ms is measured as at least that; how much more depends on our responder's own host."""
    assert 20_000 <= wire.outcome(after(0.02), address, timeout_s=1) < 500_000


def test_losses_are_timeouts_and_nothing_else_is(wire: Wire) -> None:
    """One of three hosts keeps silent: it alone times out."""
    silent = "10.99.0.2"
    script: Script = lambda packet: [] if packet.destination == silent else [(0, packet.reply())]  # noqa: E731
    (probed,) = wire.rounds(script, HOST, silent, "10.99.0.3", HOST6)

    assert probed.samples[1] == Outcome.TIMEOUT
    assert min(probed.samples[0], probed.samples[2], probed.samples[3]) >= 0
    assert not probed.disturbed


def test_replies_in_any_order_find_their_probes(wire: Wire) -> None:
    """300 hosts answer in reverse, each after a delay of its own: no RTT is given to another."""
    hosts = [f"10.99.1.{n}" if n < 256 else f"10.99.2.{n - 256}" for n in range(1, 300)]
    delay = {host: 0.1 - n / 3000 for n, host in enumerate(hosts)}
    (probed,) = wire.rounds(lambda packet: [(delay[packet.destination], packet.reply())], *hosts, timeout_s=2)

    for host, sample in zip(hosts, probed.samples, strict=True):
        assert delay[host] - 0.0005 <= sample / 1e6 <= delay[host] + 0.09, host
    assert (wire.tally.duplicates, wire.tally.foreign, wire.tally.corrupt) == (0, 0, 0)


def test_the_first_of_several_copies_wins(wire: Wire) -> None:
    """Two copies at once and one later: one answer, two duplicates."""
    script: Script = lambda p: [(0.001, p.reply()), (0.001, p.reply()), (0.02, p.reply()), (0.03, p.reply())]  # noqa: E731
    probed, _ = wire.rounds(script, HOST, "10.99.0.2", count=2)

    assert all(1000 <= sample < 15_000 for sample in probed.samples)
    assert wire.tally.duplicates >= 6


def test_a_late_reply_is_named_and_matched_to_no_newer_probe(wire: Wire) -> None:
    """The first round's reply comes during the second, whose own probe gets none: late, with its own RTT."""
    script: Script = lambda packet: [(0.3, packet.reply())] if packet.number == 0 else []  # noqa: E731
    rounds = wire.rounds(script, count=2, timeout_s=0.2)

    assert [probed.samples[0] for probed in rounds] == [Outcome.TIMEOUT] * 2
    assert (wire.tally.late, wire.tally.duplicates, wire.tally.foreign) == (1, 0, 0)
    assert 300_000 <= wire.tally.last_late_us < 360_000


def test_a_reply_between_two_rounds_is_late(wire: Wire) -> None:
    """It waits at the socket when the next round begins, and belongs to none."""
    script: Script = lambda packet: [(0.2, packet.reply())] if packet.number == 0 else [(0, packet.reply())]  # noqa: E731
    first, second = wire.rounds(script, count=2, timeout_s=0.1, before=lambda number: time.sleep(0.3 * number))

    assert first.samples[0] == Outcome.TIMEOUT
    assert 0 <= second.samples[0] < 100_000
    assert (wire.tally.late, wire.tally.duplicates) == (1, 0)
    assert 200_000 <= wire.tally.last_late_us < 260_000


def test_a_second_copy_in_the_next_round_is_a_duplicate_not_late(wire: Wire) -> None:
    """What was answered in time stays answered."""
    script: Script = lambda p: [(0, p.reply()), (0.1, p.reply())] if p.number == 0 else [(0.15, p.reply())]  # noqa: E731
    first, second = wire.rounds(script, count=2)

    assert first.samples[0] < 100_000 <= second.samples[0]
    assert (wire.tally.late, wire.tally.duplicates) == (0, 1)


def test_a_reply_after_the_timeout_but_within_the_round_is_lost_and_late(wire: Wire) -> None:
    """Stamped too late though read in time, as a slower target was waited for."""
    delays = {HOST: 0.2, "10.99.0.2": 0.0}

    def work() -> Probed:
        engine = EchoEngine()
        self_tally.append(engine.tally)
        plan = Plan(addresses=[HOST] + ["10.99.0.2"] * 30, window_s=0.2, timeout_s=0.15)
        try:
            return engine.run_round(plan)
        finally:
            engine.close()

    self_tally: list[Tally] = []
    wire.responder.script = lambda packet: [(delays[packet.destination], packet.reply())]
    probed = wire.space.run(work, unprivileged=wire.unprivileged)

    assert probed.samples[0] == Outcome.TIMEOUT
    assert min(probed.samples[1:]) >= 0
    assert self_tally[0].late == 1


@pytest.mark.parametrize(("address", "other"), [(HOST, "10.99.0.2"), (HOST6, "2001:db8:99::2")])
def test_an_answer_from_another_address_is_none(wire: Wire, address: str, other: str) -> None:
    """Asked .1, answered by .2: no answer, and counted as what it is."""
    assert wire.outcome(lambda packet: [(0, packet.reply(sender=other))], address) == Outcome.TIMEOUT
    assert wire.tally.wrong_source == 1


@pytest.mark.parametrize("at", [9, 17, 25, 40, 63])
def test_a_corrupt_payload_is_no_answer(wire: Wire, at: int) -> None:
    """One bit wrong in check word, key, place or padding, with a right checksum: not an answer."""
    assert wire.outcome(changed(at)) == Outcome.TIMEOUT
    assert wire.tally.corrupt == 1


@pytest.mark.parametrize("size", [8, 20, 36, 63, 65, 1000])
def test_a_reply_of_another_size_is_no_answer(wire: Wire, size: int) -> None:
    """Cut short or padded out, up to far more than a slot holds: corrupt or foreign, never an answer."""

    def resize(icmp: bytearray) -> None:
        icmp[:] = bytes(icmp).ljust(size, b"x")[:size]

    assert wire.outcome(lambda packet: [(0, packet.reply(change=resize))]) == Outcome.TIMEOUT
    assert wire.tally.corrupt + wire.tally.foreign == 1


def test_a_foreign_echo_with_our_id_is_no_answer(wire: Wire) -> None:
    """Another program that took the same id: its replies reach us and are foreign."""

    def foreign(icmp: bytearray) -> None:
        icmp[8:] = bytes(56)

    probed = wire.rounds(lambda packet: [(0, packet.reply(change=foreign)), (0.01, packet.reply())])[0]

    assert 10_000 <= probed.samples[0] < 100_000
    assert wire.tally.foreign == 1


def test_echoes_with_another_id_never_reach_us(wire: Wire) -> None:
    """Neither do they count as anything: the kernel drops them."""
    assert wire.outcome(changed(5)) == Outcome.TIMEOUT
    assert (wire.tally.foreign, wire.tally.corrupt) == (0, 0)


ERRORS = [(HOST, 3, code, Outcome.UNREACHABLE) for code in (0, 1, 2, 3, 9, 10, 13)]
ERRORS += [(HOST6, 1, code, Outcome.UNREACHABLE) for code in (0, 1, 3, 4)]
ERRORS += [(HOST, 11, 0, Outcome.TTL_EXCEEDED), (HOST6, 3, 0, Outcome.TTL_EXCEEDED)]
ERRORS += [(HOST, 12, 0, Outcome.UNREACHABLE), (HOST6, 4, 0, Outcome.UNREACHABLE)]


@pytest.mark.parametrize(("address", "kind", "code", "outcome"), ERRORS)
def test_errors_of_routers_keep_type_code_and_sender(
    wire: Wire, address: str, kind: int, code: int, outcome: Outcome
) -> None:
    """Unreachable, TTL exceeded and parameter problem, of both families: the outcome comes at once and says who."""
    begun = time.monotonic()
    probed = wire.rounds(lambda packet: [(0, packet.error(kind, code))], address, "10.99.0.9", timeout_s=0.5)[0]

    router = ROUTER6 if ":" in address else ROUTER
    assert probed.samples[0] == outcome
    assert probed.refusals[0] == Refusal(kind, code, router)
    assert wire.tally.icmp_errors[6 if ":" in address else 4, kind, code] >= 1
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize("quoted", [8, 27, 28, 63])
def test_an_error_that_quotes_little_is_still_matched(raw_wire: Wire, quoted: int) -> None:
    """Routers need quote no more than 8 bytes: the sequence number and the destination are enough."""
    hosts = [f"10.99.0.{n}" for n in range(1, 9)]
    script: Script = lambda p: [(0, p.error(3, 1, quoted=quoted) if p.destination == hosts[3] else p.reply())]  # noqa: E731
    probed = raw_wire.rounds(script, *hosts)[0]

    assert [n for n, sample in enumerate(probed.samples) if sample == Outcome.UNREACHABLE] == [3]


def test_the_quoted_header_may_have_options(raw_wire: Wire) -> None:
    """A router in between added IP options to our packet: its real header length is used."""

    def with_options(packet: Packet) -> bytes:
        head, rest = packet.ip[:20], packet.ip[20:]
        quote = bytes([0x47]) + head[1:] + bytes([1] * 8) + rest
        return packet.answer(bytes([3, 1, 0, 0, 0, 0, 0, 0]) + quote, ROUTER)

    assert raw_wire.outcome(lambda packet: [(0, with_options(packet))]) == Outcome.UNREACHABLE


def test_a_reply_with_ip_options_is_an_answer(raw_wire: Wire) -> None:
    """Its header is longer than those of the others in its batch, and it counts all the same."""
    script: Script = lambda p: [(0, p.answer(bytes([0]) + p.icmp[1:], options=bytes([1] * 8)))]  # noqa: E731

    assert raw_wire.outcome(script) >= 0


def test_an_error_of_the_round_before_hits_nobody(wire: Wire) -> None:
    """Quoted late and short or in full, it is no verdict on this round."""
    script: Script = lambda p: [(0.25, p.error(3, 1, quoted=64 - 56 * p.number))] if p.number < 2 else []  # noqa: E731
    rounds = wire.rounds(script, count=3, timeout_s=0.2)

    assert [probed.samples[0] for probed in rounds] == [Outcome.TIMEOUT] * 3


def test_a_reply_beats_an_error_whichever_comes_first(wire: Wire) -> None:
    """The target did answer: that is the truth. (A silent one makes the round wait for both.)"""
    orders: list[Callable[[Packet], list[Answer]]] = [
        lambda packet: [(0, packet.error(3, 1)), (0.005, packet.reply())],
        lambda packet: [(0, packet.reply()), (0.005, packet.error(3, 1))],
    ]
    for order in orders:
        script: Script = lambda packet: [] if packet.destination == "10.99.0.9" else order(packet)  # noqa: E731, B023
        probed = wire.rounds(script, HOST, "10.99.0.2", "10.99.0.9")[0]

        assert min(probed.samples[:2]) >= 0


def test_garbage_upsets_nobody(wire: Wire) -> None:
    """Errors that quote nothing, nonsense or somebody else's packets, and cut ones: the good target still answers."""

    def script(packet: Packet) -> list[Answer]:
        junk = [
            bytes([3, 1, 0, 0, 0, 0, 0, 0]) + rest for rest in (b"", b"\x45", bytes(20), packet.ip[:24], b"\xff" * 60)
        ]
        other = bytearray(packet.icmp)
        other[4] ^= 0xFF
        junk.append(bytes([11, 0, 0, 0, 0, 0, 0, 0]) + packet.ip[:20] + bytes(other))
        return [(0, packet.answer(icmp, ROUTER)) for icmp in junk] + [(0.005, packet.reply())]

    assert 5000 <= wire.outcome(script) < 100_000


def test_a_local_firewall_is_named_as_policy(wire: Wire) -> None:
    """What this host's own packet filter forbids (EPERM) is neither loss nor a routing error."""
    rules = "add table t; add chain t o { type filter hook output priority 0; }; add rule t o ip daddr 10.99.0.2 drop"
    nft(wire.space, rules)
    rounds = wire.rounds(after(), HOST, "10.99.0.2", "10.99.0.3", "10.99.0.2", "10.99.0.4", count=2)

    for probed in rounds:
        assert [s >= 0 for s in probed.samples] == [True, False, True, False, True]
        assert probed.samples[1] == probed.samples[3] == Outcome.REFUSED_BY_POLICY
        assert probed.health.unstamped <= 1
    assert wire.tally.send_errors == {errno.EPERM: 4}


def test_a_refused_destination_stops_none_after_it(wire: Wire) -> None:
    """sendmmsg stops at the first bad destination: the rest is sent all the same, and stamped rightly."""
    wire.space.ip("route", "add", "unreachable", "10.97.0.0/16")
    addresses = [f"10.97.0.{n}" if n % 3 == 0 else f"10.99.0.{n}" for n in range(1, 60)]
    probed = wire.rounds(after(0.01), *addresses, timeout_s=1)[0]

    for address, sample in zip(addresses, probed.samples, strict=True):
        assert sample == Outcome.NOT_SENT if address.startswith("10.97") else 10_000 <= sample < 60_000, address
    assert wire.tally.send_errors == {errno.EHOSTUNREACH: 19}
    assert probed.health.unstamped == 0


def test_an_interface_that_is_down_is_not_sent(wire: Wire) -> None:
    """Never 100 % loss of a target that was never asked."""
    wire.space.ip("link", "set", "tun0", "down")

    assert wire.outcome(after()) == Outcome.NOT_SENT
    assert sum(wire.tally.send_errors.values()) == 1


def test_a_dead_id_is_changed_once_per_outage(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that is stuck with the first id it saw blocks five rounds; then another id gets through."""
    monkeypatch.setattr("pingmon_agent.engine._RENEW_APART_S", 0.0)
    blocked: set[bytes] = set()

    def script(packet: Packet) -> list[Answer]:
        blocked.update({packet.icmp[4:6]} if not blocked else ())
        stuck = packet.destination == HOST and packet.icmp[4:6] in blocked
        return [] if stuck or packet.destination == "10.99.0.3" else [(0, packet.reply())]

    rounds = wire.rounds(script, HOST, "10.99.0.2", "10.99.0.3", count=9, timeout_s=0.05)

    assert [probed.samples[0] >= 0 for probed in rounds] == [False] * 5 + [True] * 4
    assert all(probed.samples[1] >= 0 for probed in rounds)
    assert wire.tally.identities == 1


EGRESS = (
    "add table netdev t; add chain netdev t e { type filter hook egress device tun0 priority 0; }; "
    "add rule netdev t e ip daddr 10.99.0.2 drop"
)


def test_what_this_host_drops_silently_is_not_sent(raw_wire: Wire) -> None:
    """Lost in our own queue without a word, a packet leaves no stamp: not sent, where the truly silent are lost."""
    script: Script = lambda packet: [] if packet.destination == "10.99.0.3" else [(0, packet.reply())]  # noqa: E731
    rounds = raw_wire.rounds(
        script,
        *(HOST, "10.99.0.2", "10.99.0.3", HOST6),
        count=3,
        before=lambda number: nft(raw_wire.space, EGRESS) if number == 1 else None,
    )

    assert rounds[0].samples[1] >= 0
    for probed in rounds[1:]:
        assert probed.samples[1:3].tolist() == [Outcome.NOT_SENT, Outcome.TIMEOUT]
        assert min(probed.samples[0], probed.samples[3]) >= 0
    assert raw_wire.tally.send_errors == {errno.ENOBUFS: 2}


@pytest.mark.parametrize("wire", ["dgram"], indirect=True)
def test_what_a_ping_socket_is_told_was_dropped_is_not_sent(wire: Wire) -> None:
    """The kernel says so to ping sockets, by ENOBUFS; the targets after it are measured all the same."""
    nft(wire.space, EGRESS)
    probed = wire.rounds(after(), HOST, "10.99.0.2", "10.99.0.3")[0]

    # Raw sockets are not told: there it is one more probe without an answer.
    assert probed.samples[1] == (Outcome.NOT_SENT if wire.unprivileged else Outcome.TIMEOUT)
    assert min(probed.samples[0], probed.samples[2]) >= 0
    assert wire.tally.send_errors == ({errno.ENOBUFS: 1} if wire.unprivileged else {})
    assert (wire.tally.send_retries > 10) == wire.unprivileged


def test_a_kernel_without_transmit_stamps_is_measured_by_our_own_clock(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Departures are then guessed between two looks at the clock, counted, and near the truth all the same."""
    monkeypatch.setattr("pingmon_agent.icmp._STAMPING", 1 << 3 | 1 << 4)
    hosts = [f"10.99.0.{n}" for n in range(1, 101)]
    silent = hosts[50]
    script: Script = lambda p: [] if p.destination == silent else [(0.02, p.reply())]  # noqa: E731
    probed = wire.rounds(script, *hosts, count=3)[-1]

    assert probed.samples[50] == Outcome.TIMEOUT
    assert all(19_500 <= sample < 60_000 for sample in probed.samples if sample >= 0)
    assert probed.health.unstamped == 100
    assert wire.tally.unstamped == 300
    assert not probed.disturbed


def test_a_stop_while_waiting_leaves_no_timeouts(wire: Wire) -> None:
    """Stopped before its time was up, a probe without answer is not probed."""
    stop = threading.Event()

    def work() -> Probed:
        engine = EchoEngine(stop)
        threading.Timer(0.1, stop.set).start()
        try:
            return engine.run_round(Plan(addresses=[HOST], window_s=0, timeout_s=5))
        finally:
            engine.close()

    begun = time.monotonic()
    probed = wire.space.run(work, unprivileged=wire.unprivileged)

    assert probed.samples.tolist() == [Outcome.NOT_PROBED]
    assert probed.health.stopped
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("name", "looks", "flag"),
    [("_clock_offset_ns", [0, 3 * 10**9], "clock_step"), ("_suspended_ns", [0, 60 * 10**9], "suspended")],
)
def test_losses_of_a_voided_round_are_no_losses(
    raw_wire: Wire, monkeypatch: pytest.MonkeyPatch, name: str, looks: list[int], flag: str
) -> None:
    """The clock was set, or the host slept: silence says nothing, and the round says why."""
    script: Script = lambda p: [] if p.destination == HOST else [(0, p.reply())]  # noqa: E731
    left = iter(looks)
    monkeypatch.setattr(f"pingmon_agent.engine.{name}", lambda: next(left))
    (probed,) = raw_wire.rounds(script, HOST, "10.99.0.2")

    assert probed.samples[0] == Outcome.NOT_PROBED
    assert probed.samples[1] == Outcome.NOT_PROBED if flag == "clock_step" else probed.samples[1] >= 0
    assert getattr(probed.health, flag)
    assert probed.disturbed
    assert (raw_wire.tally.clock_steps, raw_wire.tally.suspends) == ((1, 0) if flag == "clock_step" else (0, 1))


def test_losses_of_a_starved_round_are_no_losses(raw_wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick more than half a second late: silence in that round is no evidence against the network."""
    real, calls = Lane.send_to, []

    def stall(lane: Lane, end: int) -> bool:
        calls.append(end)
        time.sleep(0.8 if len(calls) == 1 else 0)
        return real(lane, end)

    monkeypatch.setattr(Lane, "send_to", stall)
    script: Script = lambda p: [] if p.destination == HOST else [(0, p.reply())]  # noqa: E731
    (probed,) = raw_wire.rounds(script, HOST, *["10.99.0.2"] * 31, window_s=0.2)

    assert probed.samples[0] == Outcome.NOT_PROBED
    assert min(probed.samples[1:]) >= 0
    assert probed.health.lateness_s > 0.5
    assert probed.disturbed


@pytest.mark.parametrize("reason", [errno.ENOBUFS, errno.EAGAIN])
def test_a_full_send_buffer_is_tried_again_in_the_same_round(
    raw_wire: Wire, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """What the kernel has no room for goes with the next tick; only if that lasts it is not sent. None is skipped."""
    hosts = [f"10.99.0.{n}" for n in range(1, 31)]
    real, refusals = Outbox.send, [3]

    def send(outbox: Outbox, fd: int, first: int, count: int) -> int:
        if refusals[0] and first <= 10 < first + count:
            if first < 10:
                return real(outbox, fd, first, 10 - first)
            refusals[0] -= 1
            return -reason
        return real(outbox, fd, first, count)

    monkeypatch.setattr(Outbox, "send", send)
    patient = raw_wire.rounds(after(), *hosts)[0]
    retries = raw_wire.tally.send_retries
    refusals[0] = 10**6
    never = raw_wire.rounds(after(), *hosts)[0]

    assert min(patient.samples) >= 0
    assert retries == 3
    assert never.samples[10] == Outcome.NOT_SENT
    assert min(never.samples[:10]) >= 0
    assert raw_wire.tally.send_errors[errno.ENOBUFS] == (1 if reason == errno.ENOBUFS else 20)


def test_ping_by_hand_says_who_complains(raw_wire: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    """`pingmon-agent ping` names the outcome, the sender of the error and its type and code."""
    raw_wire.responder.script = lambda p: [(0, p.error(11, 0) if p.destination == HOST else p.reply())]
    code = raw_wire.space.run(lambda: main(["ping", "-c", "1", "-W", "1", HOST, "10.99.0.2"]))

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0] == f"{HOST}  {HOST}  time to live exceeded (says {ROUTER}: ICMP type 11, code 0)"
    assert lines[1].endswith(" ms")


def test_without_a_fresh_socket_the_old_one_goes_on(
    raw_wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Too many open files, or rights given up since: another id must wait, measuring does not."""

    def refuse(version: int, way: object) -> EchoSocket:
        raise OSError(errno.EMFILE, "Too many open files")

    def before(number: int) -> None:
        if number == 1:
            monkeypatch.setattr("pingmon_agent.engine._RENEW_EVERY_S", 0.0)
            monkeypatch.setattr("pingmon_agent.engine._RENEW_APART_S", 0.0)
            monkeypatch.setattr("pingmon_agent.lane.EchoSocket", refuse)

    rounds = raw_wire.rounds(after(), HOST, HOST6, count=3, before=before)

    assert all(min(probed.samples) >= 0 for probed in rounds)
    assert raw_wire.tally.identities == 0
    assert "Too many open files" in caplog.text
