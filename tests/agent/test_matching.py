"""Properties of matching: any bytes, any order, any numbers; only the right reply to a probe of this round counts."""

from __future__ import annotations

import ipaddress
import struct
import time
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingmon_agent import mmsg
from pingmon_agent.flight import Flight
from pingmon_agent.judge import Judge
from pingmon_agent.lane import Lane
from pingmon_agent.packet import (
    KEY_AT,
    PACKET_BYTES,
    V4,
    V6,
    Format,
    Packets,
    places_of,
    read_echo,
    read_error,
    read_quote,
    round_key,
)
from pingmon_agent.plan import Refusal, Tally
from pingmon_agent.wire.contract import Outcome

from .tun import checksum

SECRET = b"a secret of this process"
FORMATS = st.sampled_from([V4, V6])


@given(st.integers(1, 70), st.integers(0, 2**32), st.integers(0, 2**16), st.integers(1, 0xFFFF))
@settings(max_examples=60, deadline=None)
def test_every_packet_of_every_round_is_right(count: int, number: int, salt: int, identity: int) -> None:
    """Checksum, id, sequence number, key and place of each target's packet, through two renumberings."""
    packets = Packets(V4, identity, count, with_checksum=True)
    for key, turn in ((round_key(SECRET, number), salt), (round_key(SECRET, number + 1), salt + 40_503)):
        packets.renumber(key, turn)
        data = packets.words.tobytes()
        for place in range(count):
            packet = data[place * PACKET_BYTES : (place + 1) * PACKET_BYTES]
            echo = read_echo(packet)
            assert checksum(packet) == 0
            assert echo is not None
            assert (echo.identity, echo.key, echo.place, echo.intact) == (identity, key, place, True)
            assert echo.check == packets.checks[place]
            assert place in places_of(int.from_bytes(packet[6:8], "big"), turn & 0xFFFF, count)


def test_more_targets_than_sequence_numbers_stay_apart() -> None:
    """Above 65,536 targets numbers repeat within a round; places, check words and checksums do not mix."""
    count = 70_000
    packets = Packets(V4, 1, count, with_checksum=True)
    packets.renumber(round_key(SECRET, 7), 65_000)
    data = packets.words.tobytes()

    for place in (0, 535, 536, 65_535, 65_536, 69_999):
        packet = data[place * PACKET_BYTES : (place + 1) * PACKET_BYTES]
        assert checksum(packet) == 0
        assert place in places_of(int.from_bytes(packet[6:8], "big"), 65_000, count)
    assert list(places_of(65_000, 65_000, count)) == [0, 65_536]
    assert len(set(packets.checks)) == count


@given(st.binary(max_size=200), FORMATS)
@settings(max_examples=300, deadline=None)
def test_any_bytes_can_be_read(data: bytes, fmt: Format) -> None:
    """Nothing raises, and what is too short to be ours is nothing."""
    echo = read_echo(data)
    error = read_error(data, fmt)
    quote = read_quote(3, 1, b"", data, fmt)

    assert (echo is None) == (len(data) < KEY_AT + 12)
    assert echo is None or not echo.intact or len(data) == PACKET_BYTES
    assert error is None or (data[0] in fmt.errors and len(data) >= 36)
    assert quote is None or data[0] == fmt.request


class _Socket:
    """What a Judge and a Reader need of a socket, without one."""

    raw, identity = True, 0x4D2

    def __init__(self, fmt: Format) -> None:
        self.format = fmt


class Court:
    """A judge over a flight of targets 192.0.2.0 to .N-1, and an inbox whose slot 0 is filled by hand."""

    def __init__(self, count: int = 8) -> None:
        self.tally, self.inbox = Tally(), mmsg.Inbox(20)
        self.judge = Judge(_Socket(V4), self.inbox, self.tally, PACKET_BYTES)  # type: ignore[arg-type]
        self.packets = Packets(V4, _Socket.identity, count, with_checksum=True)
        self.addresses = [f"192.0.2.{n}" for n in range(count)]
        self.names = mmsg.packed(16, [_name(address) for address in self.addresses])
        self.number = 0
        self.next_round()

    def next_round(self) -> None:
        """All targets were probed again."""
        self.number += 1
        key, salt = round_key(SECRET, self.number), self.number * 40_503 & 0xFFFF
        self.packets.renumber(key, salt)
        self.flight = Flight(key, salt, self.packets.count)
        self.flight.left(0, self.packets.count, 10**18, 10**18, keyed=True)
        self.flight.next = self.packets.count
        self.judge.begin(self.flight, self.packets.checks, self.names, 16)

    def reply(self, place: int) -> bytes:
        """The right answer of the target at this place, without IP header."""
        packet = self.packets.words.tobytes()[place * PACKET_BYTES : (place + 1) * PACKET_BYTES]
        return bytes([0]) + packet[1:]

    def hear(self, icmp: bytes, sender: str) -> None:
        """One message arrives with a stamp of one second after the departure."""
        header = bytes([0x45]) + bytes(11) + ipaddress.ip_address(sender).packed + bytes(4)
        control = struct.pack("=Qii6q", 64, 1, 37, 10**9 + 1, 0, 0, 0, 0, 0)
        self.inbox.control = lambda slot: control  # type: ignore[method-assign]
        self.inbox.data = lambda slot: (header + icmp)[:192]  # type: ignore[method-assign]
        self.judge.message(0)

    def answered(self) -> list[int]:
        """The places with an answer."""
        return [place for place in range(self.packets.count) if self.flight.came_s[place]]


def _name(address: str) -> bytes:
    return struct.pack("=HH4s8x", 2, 0, ipaddress.ip_address(address).packed)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_only_the_right_reply_is_an_answer(data: st.DataObject) -> None:
    """A reply changed in any byte but code, checksum and sequence number, or from elsewhere, answers nothing."""
    court = Court()
    place = data.draw(st.integers(0, 7))
    reply = bytearray(court.reply(place))
    at = data.draw(st.integers(0, PACKET_BYTES - 1).filter(lambda n: n not in (1, 2, 3, 6, 7, 28, 29, 30, 31)))
    reply[at] ^= data.draw(st.integers(1, 255))
    sender = data.draw(st.sampled_from([*court.addresses, "198.51.100.1"]))
    court.hear(bytes(reply), sender)
    assert court.answered() == []

    court.hear(court.reply(place), court.addresses[place - 1])
    assert court.answered() == []

    court.hear(court.reply(place), court.addresses[place])
    assert court.answered() == [place]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_order_of_replies_of_any_round_is_sorted_out(events: list[tuple[int, int]]) -> None:
    """Replies of this round and of rounds before, with copies, in any order: each probe gets the first of its own."""
    court = Court()
    old: list[list[bytes]] = []
    for _ in range(3):
        old.append([court.reply(place) for place in range(8)])
        court.next_round()
    old.append([court.reply(place) for place in range(8)])
    for place, age in events:
        court.hear(old[3 - age][place], court.addresses[place])

    fresh = {place for place, age in events if age == 0}
    before = {place for place, age in events if age == 1}
    copies = sum(age == 0 for _, age in events) - len(fresh) + sum(age == 1 for _, age in events) - len(before)
    assert court.answered() == sorted(fresh)
    assert court.tally.duplicates == copies
    assert court.tally.late == len(before) + sum(age > 1 for _, age in events)
    assert (court.tally.foreign, court.tally.corrupt, court.tally.wrong_source) == (0, 0, 0)


@pytest.mark.slow
@given(st.binary(max_size=160), st.binary(max_size=32), st.binary(max_size=160))
@settings(max_examples=200, deadline=None)
def test_any_message_can_be_judged(data: bytes, name: bytes, control: bytes) -> None:
    """Whatever is in a slot, of a packet or of an error queue, it raises nothing and answers nothing."""
    court = Court()
    court.inbox.name, court.inbox.control = (lambda slot: name), (lambda slot: control)  # type: ignore[method-assign]
    court.inbox.data = lambda slot: data  # type: ignore[method-assign]
    court.judge.message(0)
    court.judge.from_error_queue(0)

    assert court.answered() == []
    assert not court.flight.errors


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=20), st.data())
@settings(max_examples=200, deadline=None)
def test_numbers_of_stamps_lead_to_the_right_place(bursts: list[tuple[int, bool]], data: st.DataObject) -> None:
    """Over gaps of refused probes and probes whose number is not known, a number means its own probe or none."""
    flight = Flight(1, 0, 400)
    place, right = 0, []
    for count, keyed in bursts:
        flight.left(place, count, 0, 1, keyed=keyed)
        right += range(place, place + count) if keyed else []
        place += count + data.draw(st.integers(0, 3))
    for key, expected in enumerate(right):
        found, run = flight.place_of_key(key)
        assert found == expected
        assert right[key : key + run] == list(range(found, found + run))
    assert flight.place_of_key(len(right)) == (0, 0)
    flight.restart_keys()
    assert flight.place_of_key(0) == (0, 0)


def test_what_became_of_each_probe() -> None:
    """RTT over a second's edge, too late, missing, refused, an error, an error that a reply belies, and never sent."""
    flight = Flight(1, 0, 8)
    flight.left(0, 7, 10**18, 10**18 + 7000, keyed=True)
    flight.next = 7
    second = 10**9
    for place, (sent, came) in enumerate([(999_999_000, second + 2600), (0, 3 * second), (500, 0), (0, 0), (0, 0)]):
        flight.sent_s[place], flight.sent_ns[place] = 5 + sent // second, sent % second
        if came:
            flight.came_s[place], flight.came_ns[place] = 5 + came // second, came % second
            flight.answered += 1
    flight.sent_s[5], flight.came_s[5], flight.came_ns[5] = 5, 5, 700_000
    flight.refused[3] = Outcome.NOT_SENT
    for place in (4, 5):
        flight.fail(place, Outcome.UNREACHABLE, Refusal(3, 1, ""))
    outcomes, late = flight.outcomes(2_000_000, Outcome.TIMEOUT)

    lost = Outcome.TIMEOUT
    assert outcomes == [4, lost, lost, Outcome.NOT_SENT, Outcome.UNREACHABLE, 700, lost, Outcome.NOT_PROBED]
    assert late == 1
    assert flight.unstamped == 1


@pytest.mark.root
@given(st.lists(st.integers(0, 299), max_size=80), st.booleans())
@settings(max_examples=25, deadline=None)
def test_batches_are_read_as_single_messages_are(missing: list[int], again: bool) -> None:
    """Whichever replies are dropped or come twice in a batch, the columns hold what one by one would have given."""
    lane = Lane(4, tally := Tally())
    try:
        lane.load([_name("127.0.0.1")] * 300)
        lane.begin(SECRET, 1)
        gone = set(missing)
        for place in range(300):
            if place not in gone:
                assert lane._send(place, 1) == 1
                if again and place % 3 == 0:
                    assert lane._send(place, 1) == 1
        lane.flight.next = 300
        give_up = time.monotonic() + 2
        while sum(map(bool, lane.flight.came_s)) < 300 - len(gone) and time.monotonic() < give_up:
            lane.drain()  # a busy kernel brings loopback's answers a little later
        lane.drain()

        assert [place for place in range(300) if not lane.flight.came_s[place]] == sorted(gone)
        assert tally.duplicates == (sum(place % 3 == 0 for place in range(300) if place not in gone) if again else 0)
    finally:
        lane.socket.close()


def test_a_slot_can_be_longer_than_a_message_and_shorter_than_another() -> None:
    """Columns, names and data come from the same slot, whatever the header before the body takes."""
    for prefix in (0, 20):
        inbox = mmsg.Inbox(prefix)
        assert inbox.body_at % 8 == 0
        assert len(inbox.column(inbox.body_at, "Q")) == mmsg.SLOTS
    assert mmsg.packed(16, [b"12345678"]) == array("Q", b"12345678" + bytes(8))
