"""The dashboards: what the generator makes, and the habits that Grafana's own linter asks for.

Grafana itself is not here: what a panel looks like is not tested.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from grafana.generate import files

from .sources import DASHBOARDS, dashboards, queries

BOARDS = [pytest.param(board, id=board["uid"]) for board in dashboards()]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_the_files_are_what_the_generator_makes() -> None:
    """`python -m grafana.generate` changes nothing."""
    assert {path: path.read_text() for path in DASHBOARDS} == files()


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_can_be_provisioned(board: Any) -> None:
    """No number of a database in it, a readable uid, and no input that only a person could fill in."""
    assert board["id"] is None
    assert re.fullmatch(r"pingmon-[a-z]+", board["uid"])
    assert board["schemaVersion"] == 39
    assert board["editable"] is False
    assert "pingmon" in board["tags"]
    assert "DS_" not in json.dumps(board)
    assert "__inputs" not in board


@pytest.mark.parametrize("board", BOARDS)
def test_panels_are_described_and_do_not_overlap(board: Any) -> None:
    """Each has title, description, unit, the data source variable and a place of its own."""
    places = []
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places.append((at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]))
    overlaps = [(a, b) for a, b in itertools.combinations(places, 2) if _meet(a, b)]

    assert overlaps == []
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def _meet(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("board", BOARDS)
def test_counters_are_asked_for_as_rates(board: Any) -> None:
    """A counter stands in rate or increase over $__rate_interval, and nothing else does."""
    for title, expr in queries(board):
        without = re.sub(
            r"(?:rate|increase)\(pingmon_\w+(?:_total|_count|_sum|_bucket)\{[^}]*\}\[\$__rate_interval\]\)", "", expr
        )
        assert not re.search(r"pingmon_\w+(?:_total|_count|_sum|_bucket)\b", without), title
        assert "rate(" not in without, title
        assert "[" not in without, title


@pytest.mark.parametrize("board", BOARDS)
def test_each_variable_is_asked_for(board: Any) -> None:
    """All variables follow the time range, are used, and every query of a pair honours the choice."""
    used = "\n".join(expr for _, expr in queries(board))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["refresh"] == 2
            assert f'=~"${variable["name"]}"' in used
    for title, expr in queries(board):
        for labels in re.findall(r"pingmon_ping_\w+(\{[^}]*\})", expr):
            assert title in ("source", "target") or labels == '{source=~"$source",target=~"$target"}', title
