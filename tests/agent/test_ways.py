"""How probes leave: size, hop limit, code point, fragmenting and source, side by side in one round."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

import pytest

from pingmon_agent.plan import STANDARD, Way
from pingmon_agent.wire.contract import Outcome

from .tun import HOST, HOST6, Answer, Packet
from .wires import Wire

pytestmark = pytest.mark.root


@dataclass
class Seen:
    """A script that answers rightly and remembers what came: by destination, (traffic class, TTL, size, DF, source)."""

    packets: dict[str, tuple[int, int, int, bool, str]] = field(default_factory=dict)

    def __call__(self, packet: Packet) -> list[Answer]:
        ip = packet.ip
        if packet.v6:
            facts = (int.from_bytes(ip[:2], "big") >> 4 & 0xFF, ip[7], len(packet.icmp) - 8, False, packet.source)
        else:
            facts = (ip[1], ip[8], len(packet.icmp) - 8, bool(ip[6] & 0x40), packet.source)
        self.packets[packet.destination] = facts
        return [(0, packet.reply())]


def test_each_probe_leaves_its_own_way(wire: Wire) -> None:
    """What is asked for stands in the packets, for both families, and every reply is matched."""
    ways = [STANDARD, Way(ttl=9), Way(dscp=46), Way(df=True), Way(size=1400), Way(size=57), Way(ttl=9)]
    hosts = [f"10.99.0.{n}" for n in range(1, 8)] + [f"2001:db8:99::{n}" for n in range(1, 8)]
    seen = Seen()
    (probed,) = wire.rounds(seen, *hosts, ways=ways * 2)

    assert min(probed.samples) >= 0
    own = ipaddress.ip_address("10.99.255.254"), ipaddress.ip_address("2001:db8:99::ffff")
    assert [seen.packets[host][:4] for host in hosts[:7]] == [
        (0, 64, 56, False), (0, 9, 56, False), (46 << 2, 64, 56, False), (0, 64, 56, True),
        (0, 64, 1400, False), (0, 64, 57, False), (0, 9, 56, False),
    ]  # fmt: skip
    assert [seen.packets[host][:3] for host in hosts[7:]] == [
        (0, 64, 56), (0, 9, 56), (46 << 2, 64, 56), (0, 64, 56), (0, 64, 1400), (0, 64, 57), (0, 9, 56),
    ]  # fmt: skip
    assert {ipaddress.ip_address(facts[4]) for facts in seen.packets.values()} == set(own)


def test_a_source_is_used_or_the_probe_is_not_sent(wire: Wire) -> None:
    """An address of this host is sent from; one that is not here, or of the other family, refuses that probe alone."""
    wire.space.ip("addr", "add", "10.99.255.1/32", "dev", "tun0")
    ways = [STANDARD, Way(source="10.99.255.1"), Way(source="192.0.2.77"), Way(source="2001:db8:99::ffff")]
    seen = Seen()
    (probed,) = wire.rounds(seen, HOST, "10.99.0.2", "10.99.0.3", "10.99.0.4", ways=ways)

    assert min(probed.samples[:2]) >= 0
    assert probed.samples[2:].tolist() == [Outcome.NOT_SENT] * 2
    assert {host: facts[4] for host, facts in seen.packets.items()} == {
        HOST: "10.99.255.254",
        "10.99.0.2": "10.99.255.1",
    }


def test_what_is_too_large_for_the_way_is_not_sent(wire: Wire) -> None:
    """With "do not fragment" the kernel refuses what the link cannot carry; without it the packet leaves in pieces."""
    wire.space.ip("link", "set", "tun0", "mtu", "1300")
    (probed,) = wire.rounds(Seen(), HOST, "10.99.0.2", ways=[Way(size=1400, df=True), Way(size=1200, df=True)])

    assert probed.samples[0] == Outcome.NOT_SENT
    assert probed.samples[1] >= 0


@pytest.mark.parametrize("at", [40, 150])
def test_a_large_reply_that_was_damaged_is_no_answer(wire: Wire, at: int) -> None:
    """As far as it is read, a large reply must be what was sent; one that was cut short is no answer either."""

    def damaged(packet: Packet) -> list[Answer]:
        def change(icmp: bytearray) -> None:
            if at == 40:
                icmp[at] ^= 1
            else:
                del icmp[at:]

        return [(0, packet.reply(change=change))]

    (probed,) = wire.rounds(damaged, HOST, HOST6, ways=[Way(size=1400)] * 2)

    assert probed.samples.tolist() == [Outcome.TIMEOUT] * 2
    assert wire.tally.corrupt == 2


def test_ways_come_and_go_with_the_plan(wire: Wire) -> None:
    """Sockets of ways that nobody needs any more are closed, those still in use stay."""
    from pingmon_agent.engine import EchoEngine
    from pingmon_agent.plan import Plan

    wire.responder.script = Seen()

    def work() -> list[int]:
        engine = EchoEngine()
        counts = []
        for ways in ([Way(dscp=n) for n in range(8)], [Way(dscp=1)] * 8, None):
            hosts = [f"10.99.0.{n}" for n in range(1, 9)]
            probed = engine.run_round(Plan(addresses=hosts, ways=ways, window_s=0, timeout_s=0.5))
            assert min(probed.samples) >= 0
            counts.append(len(engine._lanes))
        engine.close()
        return counts

    assert wire.space.run(work, unprivileged=wire.unprivileged) == [9, 3, 2]
