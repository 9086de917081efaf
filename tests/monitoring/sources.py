"""The committed rules and dashboards, and what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "prometheus" / "pingmon-rules.yml"
RULE_TESTS = sorted(RULES.parent.glob("*_test.yml"))
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"

_RECORDED = re.compile(r"\b(?:source_target|source|target):pingmon_\w+:\w+")


def recorded(text: str) -> set[str]:
    """Names of recorded series in a text."""
    return set(_RECORDED.findall(text))


def exported(text: str) -> set[str]:
    """Names in a text that only our programs can export."""
    return set(re.findall(r"\bpingmon_(?:server|agent|ping)_\w+", _RECORDED.sub("", text)))


def rule_lines() -> str:
    """The rules without their comments."""
    return "\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))


def alerts() -> list[str]:
    """Names of all alerts, in their order."""
    return re.findall(r"^      - alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def dashboards() -> list[Any]:
    """All of them, as JSON says."""
    return [json.loads(path.read_text()) for path in DASHBOARDS]


def queries(board: Any) -> Iterator[tuple[str, str]]:
    """(title of the panel or name of the variable, PromQL) of each query of a dashboard."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"])
