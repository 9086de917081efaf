"""Names are looked up off the hot path; a bad or slow one harms nobody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from icmplib import NameLookupError

from pingmon_agent.resolve import (
    LONGEST_S,
    REFRESH_S,
    RETRY_S,
    SHORTEST_S,
    Lookup,
    Resolver,
    name_server_ttl,
)

Make = Callable[..., Resolver]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes resolvers that are stopped after the test."""
    made: list[Resolver] = []

    def start(
        lookup: Lookup, now: Callable[[], float] = time.monotonic, ttl: Callable[[str], float | None] = lambda _: None
    ) -> Resolver:
        made.append(Resolver(lookup, now, ttl))
        made[-1].start()
        return made[-1]

    yield start
    for resolver in made:
        resolver.stop()


def until(condition: Callable[[], bool]) -> bool:
    """Wait up to 3 s for another thread."""
    deadline = time.monotonic() + 3
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_addresses_need_no_lookup(make: Make) -> None:
    """IPv4, IPv6 in any spelling, and a zone."""
    resolver = make(lambda name: pytest.fail(f"looked up {name}"), time.monotonic)
    resolver.watch(["192.0.2.1", "2001:DB8::1"])

    assert resolver.settle(0.1)
    assert resolver.address("192.0.2.1") == "192.0.2.1"
    assert resolver.address("2001:DB8:0::1") == "2001:db8::1"
    assert resolver.address("fe80::1%eth0") == "fe80::1%eth0"


def test_a_bad_name_harms_no_other(make: Make) -> None:
    """One name fails, one hangs, and the third has its address at once."""
    release = threading.Event()

    def lookup(name: str) -> list[str]:
        if name == "bad":
            raise NameLookupError(name)
        if name == "slow":
            release.wait(5)
        return ["192.0.2.7"]

    resolver = make(lookup, time.monotonic)
    resolver.watch(["bad", "slow", "good"])

    assert until(lambda: resolver.address("good") == "192.0.2.7")
    assert resolver.address("bad") is None
    assert resolver.address("slow") is None
    assert not resolver.settle(0.05)
    release.set()
    assert resolver.settle(2)


def test_the_last_good_address_outlives_a_failure(make: Make) -> None:
    """After the refresh fails the old address stays in use, and the next retry brings the new one."""
    clock = [1000.0]
    answers = [["192.0.2.1"], None, ["192.0.2.2"]]
    asked = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        answer = answers[len(asked) - 1]
        if answer is None:
            raise NameLookupError(name)
        return answer

    resolver = make(lookup, lambda: clock[0])
    resolver.watch(["host"])
    assert until(lambda: resolver.address("host") == "192.0.2.1")
    clock[0] += REFRESH_S + 1
    resolver.watch(["host"])
    assert until(lambda: len(asked) == 2)
    kept = resolver.address("host")
    time.sleep(0.05)
    clock[0] += RETRY_S + 1
    resolver.watch(["host"])

    assert kept == "192.0.2.1"
    assert until(lambda: resolver.address("host") == "192.0.2.2")


def test_a_crash_of_the_lookup_is_survived(make: Make) -> None:
    """A name that cannot even be encoded is a failed lookup like any other."""

    def lookup(name: str) -> list[str]:
        if name == "x" * 300:
            raise UnicodeError("label too long")
        return ["192.0.2.1"]

    resolver = make(lookup, time.monotonic)
    resolver.watch(["x" * 300])
    assert resolver.settle(2)
    resolver.watch(["fine"])

    assert until(lambda: resolver.address("fine") == "192.0.2.1")


def test_stopping_does_not_wait_for_a_hanging_name_server() -> None:
    """A lookup that hangs is left behind."""
    release = threading.Event()
    resolver = Resolver(lambda _: [str(release.wait(5))], ttl_of=lambda _: None)
    resolver.start()
    resolver.watch(["slow"])
    time.sleep(0.05)
    begun = time.monotonic()

    resolver.stop()

    assert time.monotonic() - begun < 1
    release.set()


def test_an_answer_is_used_as_long_as_it_is_good(make: Make) -> None:
    """The name servers' time to live decides when a name is asked again, within half a minute and an hour."""
    clock = [0.0]
    asked: list[float] = []

    def lookup(_name: str) -> list[str]:
        asked.append(clock[0])
        return ["192.0.2.1"]

    for ttl, again_s in ((120.0, 120.0), (1.0, SHORTEST_S), (86_400.0, LONGEST_S), (None, REFRESH_S)):
        asked.clear()
        clock[0] = 0.0
        resolver = make(lookup, lambda: clock[0], lambda _name, good=ttl: good)
        resolver.watch(["host"])
        assert resolver.settle(2)
        time.sleep(0.05)  # the name servers' word comes after the address

        clock[0] = again_s - 1
        resolver._wake.set()
        time.sleep(0.1)
        assert asked == [0.0]
        clock[0] = again_s + 1
        resolver._wake.set()
        assert until(lambda expected=again_s: asked == [0.0, expected + 1])


def test_both_families_of_a_name_are_kept_and_turning_lists_change_nothing(make: Make) -> None:
    """A and AAAA side by side; a name server that turns its list around at each question moves no target."""
    clock, found = [0.0], ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    resolver = make(lambda _name: found, lambda: clock[0], lambda _name: None)
    resolver.watch(["host"])
    assert resolver.settle(2)
    changes = resolver.changes

    found[:] = ["192.0.2.2", "192.0.2.1", "2001:db8::2", "2001:db8::1"]
    resolver._refresh("host")
    assert (resolver.changes, resolver.address("host")) == (changes, "192.0.2.1")
    assert (resolver.address("host", 4), resolver.address("host", 6)) == ("192.0.2.1", "2001:db8::1")

    found[:] = ["2001:db8::2"]
    resolver._refresh("host")
    assert (resolver.address("host"), resolver.address("host", 4)) == ("2001:db8::2", None)


def test_the_time_to_live_is_asked_of_the_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real question over UDP to a name server of ours; one that does not answer means: not known."""
    import dns.resolver

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_name_server, args=(server,), daemon=True)
        thread.start()
        asking = dns.resolver.Resolver(configure=False)
        asking.nameservers, asking.port = ["127.0.0.1"], server.getsockname()[1]
        monkeypatch.setattr(dns.resolver, "default_resolver", asking)

        assert name_server_ttl("host.example") == 77.0
    monkeypatch.setattr("pingmon_agent.resolve._TTL_WAIT_S", 0.2)
    assert name_server_ttl("host.example") is None


def _name_server(server: socket.socket) -> None:
    """Answers A questions with a time to live of 77, others with nothing."""
    import dns.message
    import dns.rdatatype
    import dns.rrset

    for _ in range(2):
        data, whom = server.recvfrom(512)
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        if question.question[0].rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.question[0].name, 77, "IN", "A", "192.0.2.1"))
        server.sendto(answer.to_wire(), whom)
