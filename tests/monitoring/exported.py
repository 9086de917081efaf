"""Every name that server and agent export, read off the pages of the real exporters."""

from __future__ import annotations

import re
from pathlib import Path

from pingmon.app import Application
from pingmon.config import build
from pingmon.services.bundle import open_services
from pingmon_agent.metrics import AGENT_METRICS, Facts, Metrics
from pingmon_agent.pairs import Pairs
from pingmon_agent.wire.contract import Target, TargetSet
from tests.server.conftest import FakeClock

# The server leaves it out as long as nothing is stored.
LATER = {"pingmon_server_storage_oldest_result_timestamp_seconds"}


def server_page(folder: Path) -> str:
    """/metrics of a server with an empty database in `folder`."""
    config = build({"server": {"data_dir": str(folder)}}, {})
    services = open_services(config, FakeClock())
    try:
        return Application(config, services).flask.test_client().get("/metrics").get_data(as_text=True)
    finally:
        services.close()


def agent_page() -> str:
    """/metrics of an agent with one target."""
    pairs = Pairs("probe-1")
    target = Target(id=1, name="gateway", address="192.0.2.1")
    pairs.load(TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=5, targets=(target,)))
    values: dict[str, float | dict[tuple[str, ...], float]] = {
        name: dict.fromkeys([("x",) * len(labels)], 1.0) if labels else 1.0
        for name, kind, labels, _ in AGENT_METRICS
        if kind != "histogram"
    }
    return Metrics(lambda: Facts(values=values, not_ready=()), pairs).page()


def names(page: str) -> set[str]:
    """Of all samples and families on a page."""
    return set(re.findall(r"^(?:# TYPE )?(pingmon_\w+)", page, re.MULTILINE))
