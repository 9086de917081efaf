"""The agent's pages, read by Prometheus' own parser."""

from __future__ import annotations

import http.client
import json
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pingmon_agent.metrics import AGENT_METRICS, Facts, Metrics, MetricsServer
from pingmon_agent.pairs import PAIR_METRICS, Pairs
from pingmon_agent.wire.contract import Outcome, Target, TargetSet


def a_set(*names: str) -> TargetSet:
    """A target set with these names."""
    targets = tuple(Target(id=n, name=name, address="192.0.2.1") for n, name in enumerate(names))
    return TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=5, targets=targets)


def samples_of(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value of a page."""
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
    }


def pair(target: str, **more: str) -> tuple[tuple[str, str], ...]:
    """Labels of a pair's sample."""
    return tuple(sorted({"source": "probe-1", "target": target, **more}.items()))


def test_pairs_count_what_happened() -> None:
    """Requests, losses, the histogram's sum and buckets, jitter, up and the last reply, as Prometheus reads them."""
    pairs = Pairs("probe-1")
    pairs.load(a_set("good", "lossy", 'odd "name"\\'))
    for n in range(4):
        pairs.observe(array("i", [1000 + 160 * n, Outcome.TIMEOUT, Outcome.NOT_SENT]), 1_700_000_000_000 + n)

    got = samples_of(pairs.render())

    assert got["pingmon_ping_requests_total", pair("good")] == 4
    assert got["pingmon_ping_rtt_seconds_sum", pair("good")] == pytest.approx(0.004960)
    assert got["pingmon_ping_rtt_seconds_bucket", pair("good", le="0.001")] == 1
    assert got["pingmon_ping_rtt_seconds_bucket", pair("good", le="0.002")] == 4
    assert got["pingmon_ping_rtt_seconds_count", pair("good")] == 4
    assert got["pingmon_ping_jitter_seconds", pair("good")] == pytest.approx(160e-6 * (1 - (15 / 16) ** 3), abs=1e-6)
    assert got["pingmon_ping_last_reply_timestamp_seconds", pair("good")] == pytest.approx(1_700_000_000.003)
    assert (got["pingmon_ping_up", pair("good")], got["pingmon_ping_up", pair("lossy")]) == (1, 0)
    assert got["pingmon_ping_lost_total", pair("lossy")] == 4
    assert got["pingmon_ping_requests_total", pair('odd "name"\\')] == 0


def test_one_lost_probe_does_not_take_a_target_down() -> None:
    """Up is damped: three in a row, and one reply brings it back."""
    pairs, ups = Pairs("probe-1"), []
    pairs.load(a_set("t"))
    for sample in (500, -1, -1, -1, 500):
        pairs.observe(array("i", [sample]), 1)
        ups.append(samples_of(pairs.render())["pingmon_ping_up", pair("t")])

    assert ups == [1, 1, 1, 0, 1]


def test_counters_outlive_a_change_of_the_set() -> None:
    """A target that stays keeps its counters; one that left is gone from the page."""
    pairs = Pairs("probe-1")
    pairs.load(a_set("stays", "goes"))
    pairs.observe(array("i", [100, 100]), 1)
    pairs.load(a_set("stays"))

    got = samples_of(pairs.render())

    assert got["pingmon_ping_requests_total", pair("stays")] == 1
    assert ("pingmon_ping_requests_total", pair("goes")) not in got


@given(
    st.lists(st.lists(st.integers(-7, 3_000_000), min_size=3, max_size=3), min_size=1, max_size=40),
    st.sets(st.integers(0, 39)),
)
@settings(max_examples=60, deadline=None)
def test_many_rounds_at_once_count_as_one_by_one(rounds: list[list[int]], scrapes: set[int]) -> None:
    """Whenever somebody scrapes in between, the page is the same as if each round had been worked in by itself."""
    at_once, singly = Pairs("probe-1"), Pairs("probe-1")
    for pairs in (at_once, singly):
        pairs.load(a_set("a", "b", "c"))
    for number, row in enumerate(rounds):
        at_once.observe(array("i", row), 1_700_000_000_000 + number)
        singly.observe(array("i", row), 1_700_000_000_000 + number)
        singly.render()
        if number in scrapes:
            at_once.render()

    assert samples_of(at_once.render()) == pytest.approx(samples_of(singly.render()), abs=2e-6)


def test_targets_of_one_name_are_two_series() -> None:
    """Twice the same labels would make Prometheus refuse the whole page, so the id tells them apart."""
    pairs = Pairs("probe-1")
    pairs.load(a_set("same", "same"))
    pairs.observe(array("i", [100, 100]), 1)

    got = samples_of(pairs.render())

    assert got["pingmon_ping_requests_total", pair("same#0")] == 1
    assert got["pingmon_ping_requests_total", pair("same#1")] == 1


NUMBERS: dict[str, float | dict[tuple[str, ...], float]] = {
    name: dict.fromkeys([("x",) * len(labels)], 7.0) if labels else 7.0
    for name, kind, labels, _ in AGENT_METRICS
    if kind != "histogram"
}


@pytest.fixture
def server() -> Iterator[tuple[MetricsServer, list[str]]]:
    """Pages on a free port, and the list of reasons why it is not ready."""
    why: list[str] = ["no targets are loaded"]
    pairs = Pairs("probe-1")
    pairs.load(a_set("t"))
    pages = MetricsServer(
        ("127.0.0.1", 0),
        Metrics(lambda: Facts(values=NUMBERS, not_ready=tuple(why), status={"state": "approved"}), pairs),
    )
    pages.start()
    yield pages, why
    pages.stop()


def get(port: int, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_every_listed_metric_is_on_the_page_and_nothing_else(server: tuple[MetricsServer, list[str]]) -> None:
    """The lists that the docs are checked against are the truth; no `_created` series."""
    status, kind, page = get(server[0].port, "/metrics")

    families = {f.name: f for f in text_string_to_metric_families(page)}
    listed = {name.removesuffix("_total") for name, *_ in (*AGENT_METRICS, *PAIR_METRICS)}
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert {name for name in families if name.startswith("pingmon_")} == listed
    assert "_created" not in page
    assert "process_resident_memory_bytes" in families


def test_ready_says_why_not(server: tuple[MetricsServer, list[str]]) -> None:
    """503 with the reasons, 200 once there are none."""
    pages, why = server
    before = get(pages.port, "/-/ready")
    why.clear()
    after = get(pages.port, "/-/ready")

    assert before[0] == 503
    assert json.loads(before[2])["why_not"] == ["no targets are loaded"]
    assert after[0] == 200
    assert json.loads(after[2]) == {"ready": True, "why_not": [], "state": "approved"}


@pytest.mark.parametrize(
    ("path", "status"), [("/-/healthy", 200), ("/", 200), ("/nothing", 404), ("/metrics?x=1", 200)]
)
def test_other_pages(server: tuple[MetricsServer, list[str]], path: str, status: int) -> None:
    """The process lives, the landing page names the pages, and what is not there says so."""
    assert get(server[0].port, path)[0] == status
