"""Names are looked up off the hot path; a bad or slow one harms nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from icmplib import NameLookupError

from pingmon_agent.resolve import REFRESH_S, RETRY_S, Lookup, Resolver

Make = Callable[[Lookup, Callable[[], float]], Resolver]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes resolvers that are stopped after the test."""
    made: list[Resolver] = []

    def start(lookup: Lookup, now: Callable[[], float] = time.monotonic) -> Resolver:
        made.append(Resolver(lookup, now))
        made[-1].start()
        return made[-1]

    yield start  # type: ignore[misc]
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
    resolver = Resolver(lambda name: [str(release.wait(5))])
    resolver.start()
    resolver.watch(["slow"])
    time.sleep(0.05)
    begun = time.monotonic()

    resolver.stop()

    assert time.monotonic() - begun < 1
    release.set()
