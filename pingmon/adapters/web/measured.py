"""What was measured, as JSON or CSV: the picture now or at an instant, the history of pairs, rows and columns, and the
original /monitoring path. Reads the request, asks one service. Must not know: HTML, sockets, the store.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from pingmon.services.downsample import FIELDS
from pingmon.services.errors import Invalid, NotFound
from pingmon.services.spreadsheet import tame
from pingmon.services.timespan import Span, instant

from .api import NO_AGENT, visible
from .context import services

PACKED: Final = "application/octet-stream"
SAMPLE_FIELDS: Final = ("timestamp", "rtt_ms", "status")

blueprint = Blueprint("measured", __name__)


@blueprint.get("/monitoring/<agent>/<target>")
def pair(agent: str, target: str) -> ResponseReturnValue:
    """The last hour of one pair, as the original program answered it."""
    return jsonify(services().history.pair(agent, target))


@blueprint.get("/api/v1/grid")
def grid() -> ResponseReturnValue:
    """The whole picture now, or `at` an instant of the time that raw rounds are kept."""
    at = _asked("at").get("at")
    if at is None:
        return jsonify(services().grid.picture_json())
    if request.accept_mimetypes.best_match(["application/json", PACKED]) == PACKED:
        return Response(services().past.picture_packed(at), content_type=PACKED)
    return Response(services().past.picture_json(at), content_type="application/json")


@blueprint.get("/api/v1/history/<agent>/<target>")
def history_of_pair(agent: str, target: str) -> ResponseReturnValue:
    """One pair over any time; CSV where the client prefers that."""
    body = services().history.series(agent, target, _span())
    fields = FIELDS if "points" in body else SAMPLE_FIELDS
    rows = body.get("points") or body.get("samples") or []
    return _csv(fields, rows) if _wants_csv() else jsonify(body)


@blueprint.get("/api/v1/history")
def history_of_many() -> ResponseReturnValue:
    """A row (`agent=`) or a column (`target=`) over any time; CSV has the other end's name in its first field."""
    asked = _asked("agent", "target", "from", "to", "step")
    if ("agent" in asked) == ("target" in asked):
        raise Invalid("give either `agent` for its row or `target` for its column; both: /api/v1/history/AGENT/TARGET")
    if "agent" in asked:
        body, other = services().history.row(asked["agent"], _span("agent")), "target"
    else:
        body, other = services().history.column(asked["target"], _span("target")), "agent"
    if not _wants_csv():
        return jsonify(body)
    rows = [{other: series[other]} | point for series in body["series"] for point in series["points"]]
    return _csv((other, *FIELDS), rows)


@blueprint.get("/api/v1/agents/<ref>/completeness")
def agent_completeness(ref: str) -> ResponseReturnValue:
    """What arrived of an agent, what did not, and why; the last 24 hours without `from` and `to`."""
    if not visible(services().registry.agent(ref)):
        raise NotFound(NO_AGENT.format(ref))
    return jsonify(services().completeness.agent(ref, *_window()))


@blueprint.get("/api/v1/completeness/<agent>/<target>")
def pair_completeness(agent: str, target: str) -> ResponseReturnValue:
    """The same for one pair, and why the agent's host refuses to ping this target, if it does."""
    body = services().completeness.pair(agent, target, *_window())
    registry = services().registry
    why = services().refusals.why(registry.agent(agent).no, registry.target(target).id)
    return jsonify(body | {"refused": why})


def _window() -> tuple[float | None, float | None]:
    """`from` and `to` in unix seconds; None where the request does not say."""
    asked, now = _asked("from", "to"), services().clock.wall_ms()
    since, until = (instant(name, asked[name], now) / 1000 if name in asked else None for name in ("from", "to"))
    return since, until


def _span(*more: str) -> Span:
    asked = _asked("from", "to", "step", *more)
    return services().history.span(asked.get("from"), asked.get("to"), asked.get("step"))


def _asked(*known: str) -> dict[str, str]:
    """The query's parameters; one that is misspelt would silently give another answer, so it is refused."""
    for name in request.args:
        if name not in known:
            raise Invalid(f"the parameter {name!r} is not known here; there are {', '.join(known)}")
    return request.args.to_dict()


def _wants_csv() -> bool:
    return request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"


def _csv(fields: Sequence[str], rows: Sequence[dict[str, Any]]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: tame(value) for name, value in row.items()} for row in rows)
    return Response(text.getvalue(), content_type="text/csv; charset=utf-8; header=present")
