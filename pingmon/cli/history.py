"""`pingmon history`: what was measured between one agent and one target, read from the store on this machine."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from .common import add_config, services_of
from .plain import Columns, add_output, print_rows

POINTS = (
    ("time", "TIME"), ("sent", "SENT"), ("lost", "LOST"), ("errors", "ERRORS"), ("loss_max", "WORST MINUTE"),
    ("min_ms", "MIN MS"), ("p50_ms", "P50 MS"), ("p95_ms", "P95 MS"), ("p99_ms", "P99 MS"), ("max_ms", "MAX MS"),
)  # fmt: skip
SAMPLES = (("time", "TIME"), ("rtt_ms", "RTT MS"), ("status", "STATUS"))


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    parser = subparsers.add_parser("history", help="what was measured between an agent and a target")
    parser.add_argument("agent", help="id or hostname")
    parser.add_argument("target", help="id, name or address")
    parser.add_argument(
        "--from", dest="since", metavar="TIME", default="-1h",
        help="unix seconds, 2026-11-25T12:00:00Z, or as --from=-6h (default: -1h)",
    )  # fmt: skip
    parser.add_argument("--to", dest="until", metavar="TIME", default="now", help="likewise (default: now)")
    parser.add_argument("--step", help="60, 5m, 1h, or raw for every sample (default: about 720 lines)")
    add_output(parser)
    add_config(parser)
    parser.set_defaults(func=_history)


def _history(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        span = services.history.span(args.since, args.until, args.step)
        body = services.history.series(args.agent, args.target, span)
    columns: Columns = POINTS if "points" in body else SAMPLES
    print_rows([_dated(row) for row in body.get("points") or body["samples"]], columns, args.output)
    return 0


def _dated(row: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(row["timestamp"], UTC)
    return row | {"time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
