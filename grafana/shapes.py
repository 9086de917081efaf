"""The shapes of Grafana's classic dashboard JSON (schema 39: Grafana 10 and newer), as far as pingmon needs them.

Must not know: any metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
SCHEMA = 39
COLUMNS = 24
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
RED, ORANGE, YELLOW, GREEN, BLUE = "red", "orange", "yellow", "green", "blue"
Steps = Sequence[tuple[float | None, str]]  # from which value on which colour; None: from the least


def query(expr: str, legend: str = "", *, ref: str = "A", table: bool = False, instant: bool = False) -> Json:
    """One PromQL query of a panel; `table` is one row per series, of now."""
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expr,
        "format": "table" if table else "time_series",
        "instant": table or instant,
        "legendFormat": legend or "__auto",
        "range": not (table or instant),
        "refId": ref,
    }


def panel(
    kind: str, title: str, description: str, queries: Sequence[Json], *, size: tuple[int, int], **more: Any
) -> Json:
    """A panel of `size` (columns of 24, rows); `more`: `defaults` of its fields, `overrides`, `options`,
    `transformations`. Its place and number come with `laid_out`.
    """
    return {
        "datasource": SOURCE,
        "description": description,
        "fieldConfig": {"defaults": more.pop("defaults"), "overrides": more.pop("overrides", [])},
        "gridPos": {"w": size[0], "h": size[1]},
        "options": more.pop("options", {}),
        "targets": list(queries),
        "title": title,
        "transformations": more.pop("transformations", []),
        "type": kind,
        **more,
    }


def fields(unit: str, steps: Steps = ((None, GREEN),), **more: Any) -> Json:
    """What holds for every field of a panel."""
    thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}
    return {"color": {"mode": "thresholds"}, "mappings": [], "thresholds": thresholds, "unit": unit, **more}


def override(field: str, **properties: Any) -> Json:
    """What is different for one field; `__` in a name stands for a dot."""
    found = [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": "byName", "options": field}, "properties": found}


def stat(title: str, description: str, queries: Sequence[Json], defaults: Json, width: int = 4) -> Json:
    """One number in large, or a few."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }
    return panel("stat", title, description, queries, size=(width, 4), defaults=defaults, options=options)


def lines(
    title: str,
    description: str,
    queries: Sequence[Json],
    unit: str,
    *,
    width: int = 12,
    least: float | None = 0,
    **custom: Any,
) -> Json:
    """Values over time; `least`: where the axis begins, `custom`: how they are drawn."""
    drawn = {"drawStyle": "line", "fillOpacity": 0, "lineWidth": 1, "showPoints": "never", "spanNulls": False, **custom}
    defaults = fields(unit, custom=drawn) | {"color": {"mode": "palette-classic"}}
    if least is not None:
        defaults["min"] = least
    options = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "right", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, description, queries, size=(width, 9), defaults=defaults, options=options)


def timeline(title: str, description: str, queries: Sequence[Json], defaults: Json, width: int = COLUMNS) -> Json:
    """States over time, a row each."""
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, description, queries, size=(width, 8), defaults=defaults, options=options)


def table(
    title: str, description: str, queries: Sequence[Json], defaults: Json, *, sort: str = "", **more: Any
) -> Json:
    """Rows and columns of now; `sort`: by which column, largest first."""
    options = {
        "cellHeight": "sm",
        "footer": {"countRows": False, "fields": "", "reducer": ["sum"], "show": False},
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": sort}] if sort else [],
    }
    return panel("table", title, description, queries, defaults=defaults, options=options, **more)


def coloured(defaults: Json) -> Json:
    """These fields as cells with the colour behind the number."""
    return defaults | {"custom": {"align": "center", "cellOptions": {"mode": "basic", "type": "color-background"}}}


def side_by_side(*names: str) -> list[Json]:
    """Transformations that make one table of the queries A, B, ... with these names for their values."""
    named = {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(names)}
    tidy = {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": named}}
    return [{"id": "merge", "options": {}}, tidy]


def laid_out(rows: Sequence[Sequence[Json]]) -> list[Json]:
    """All panels with numbers and places: rows of panels side by side, as high as their highest."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        x = 0
        for one in row:
            placed.append(one | {"id": len(placed) + 1, "gridPos": {**one["gridPos"], "x": x, "y": y}})
            x += one["gridPos"]["w"]
        y += max(one["gridPos"]["h"] for one in row)
    return placed


def choice(name: str, label: str, asked: str) -> Json:
    """A variable with the values of a label, any number of them, all at first."""
    return {
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": SOURCE,
        "hide": 0,
        "includeAll": True,
        "label": label,
        "multi": True,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": asked, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }


_DATA_SOURCE: Json = {
    "hide": 0,
    "includeAll": False,
    "label": "Data source",
    "multi": False,
    "name": "datasource",
    "options": [],
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
    "type": "datasource",
}


def board(uid: str, title: str, description: str, variables: Sequence[Json], rows: Sequence[Sequence[Json]]) -> Json:
    """A whole dashboard; the data source is its first variable."""
    return {
        "annotations": {"list": []},
        "description": description,
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": laid_out(rows),
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": ["pingmon"],
        "templating": {"list": [_DATA_SOURCE, *variables]},
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": title,
        "uid": uid,
        "version": 1,
        "weekStart": "",
    }
