"""History and past pictures over HTTP: what may be asked, JSON and CSV, and who is told what is wrong."""

from __future__ import annotations

import csv
import io
from array import array

import pytest

from pingmon.store.rounds import StoredRound

from .site import Site


@pytest.fixture
def hour(site: Site) -> Site:
    """One agent, targets `one` and `=two` (a name that a spreadsheet would run), a round a minute for an hour."""
    services = site.application.services
    services.registry.approve(site.pending_agent("probe-1"), "test")
    services.registry.put_targets([("one", "192.0.2.1"), ("=two", "192.0.2.2")], "test")
    agent = services.registry.agent("probe-1")
    ids = services.registry.snapshot.sets[agent.no]
    since = site.clock.now_ms - 3_600_000
    rounds = [
        StoredRound(
            agent_no=agent.no, epoch="e", seq=k + 1, started_ms=since + k * 60_000, revision=ids.revision, flags=0,
            received_ms=since + k * 60_000, samples=array("i", [1000 + k, -1]),
        )
        for k in range(60)
    ]  # fmt: skip
    services.rounds.write(rounds, {(agent.no, "e"): 60}, site.clock.now_ms)
    return site


def test_a_pair_in_steps_and_raw(hour: Site) -> None:
    """Points of any step, or every sample; what was asked stands in the answer."""
    viewer = hour.visitor("viewer")
    steps = viewer.api("GET", "/api/v1/history/probe-1/one?from=-30m&step=10m")
    raw = viewer.api("GET", "/api/v1/history/probe-1/192.0.2.1?from=-10m&step=raw")

    assert [(p["sent"], p["lost"], p["max_ms"]) for p in steps["points"]][1:3] == [(10, 0, 1.043), (10, 0, 1.053)]
    assert (steps["agent"], steps["target"], steps["step_s"]) == ("probe-1", "one", 600)
    assert steps["to"] - steps["from"] == 1800
    assert [s["rtt_ms"] for s in raw["samples"]] == [1.05 + k / 1000 for k in range(10)]


def test_csv_for_who_wants_it(hour: Site) -> None:
    """The same numbers with a header; names that a spreadsheet would run are tamed."""
    viewer = hour.visitor("viewer")
    as_csv = {"headers": {"Accept": "text/csv"}}
    pair = viewer.get("/api/v1/history/probe-1/one?from=-1h&step=1h", **as_csv)
    row = viewer.get("/api/v1/history?agent=probe-1&from=-1h&step=1h", **as_csv)
    raw = viewer.get("/api/v1/history/probe-1/=two?from=-2m&step=raw", **as_csv)
    json = viewer.api("GET", "/api/v1/history/probe-1/one?from=-1h&step=1h")

    assert pair.content_type == "text/csv; charset=utf-8; header=present"
    lines = list(csv.DictReader(io.StringIO(pair.text)))
    assert [float(line["p99_ms"]) for line in lines if line["p99_ms"]] == [
        p["p99_ms"] for p in json["points"] if p["p99_ms"] is not None
    ]
    assert {line["target"] for line in csv.DictReader(io.StringIO(row.text))} == {"one", "'=two"}
    assert [line["status"] for line in csv.DictReader(io.StringIO(raw.text))] == ["timeout", "timeout"]


def test_a_row_and_a_column(hour: Site) -> None:
    """By the parameter that names one end."""
    viewer = hour.visitor("viewer")
    row = viewer.api("GET", "/api/v1/history?agent=probe-1&step=600")
    column = viewer.api("GET", "/api/v1/history?target=one&step=600")

    assert [series["target"] for series in row["series"]] == ["one", "=two"]
    assert column["series"][0]["points"] == row["series"][0]["points"]
    assert column["series"][0]["agent"] == "probe-1"


def test_the_grid_at_an_instant(hour: Site) -> None:
    """Half an hour ago one was fine and two was down."""
    services = hour.application.services
    viewer = hour.visitor("viewer")
    half = viewer.api("GET", "/api/v1/grid?at=-30m")

    assert services.registry.interval_s == 5
    assert half["rtt_ms"] == [[1.03, None]]
    assert half["state"] == [["ok", "lossy"]]
    assert half["at"] == hour.clock.now_ms / 1000 - 1800


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (
            "/api/v1/history/probe-1/one?form=-1h",
            422,
            "the parameter 'form' is not known here; there are from, to, step",
        ),
        ("/api/v1/history/probe-1/one?from=yesterday", 422, "`from` is no time: 'yesterday'"),
        ("/api/v1/history/probe-1/three", 404, "there is no target 'three'"),
        ("/api/v1/history", 422, "give either `agent` for its row or `target` for its column"),
        ("/api/v1/history?agent=probe-1&target=one", 422, "give either `agent`"),
        ("/api/v1/history?agent=probe-1&step=raw", 422, "give a step such as 60"),
        ("/api/v1/grid?at=-25h", 422, "single rounds are kept for 24 hours"),
        ("/api/v1/grid?at=2099-01-01", 422, "`at` lies in the future"),
    ],
)
def test_a_wrong_question_gets_a_sentence(hour: Site, path: str, status: int, words: str) -> None:
    """A misspelt parameter would silently give another answer."""
    assert words in hour.visitor("viewer").api("GET", path, status=status)["message"]


def test_a_store_that_cannot_be_read_is_503(hour: Site) -> None:
    """The page stays up, and says what is away."""
    services = hour.application.services
    viewer = hour.visitor("viewer")
    services.rounds.close()
    (services.config.data_dir / "samples.db").rename(services.config.data_dir / "away.db")

    refused = viewer.api("GET", "/api/v1/history/probe-1/one", status=503)
    assert (refused["code"], refused["message"][:38]) == ("unavailable", "the sample store cannot be read now (u")
    assert viewer.api("GET", "/api/v1/grid?at=-5m", status=503)["code"] == "unavailable"
