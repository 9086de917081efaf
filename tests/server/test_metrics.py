"""/metrics, health and readiness of the server, on the real application."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from pingmon.app import Application
from pingmon.config import build
from pingmon.services.bundle import Services

from .conftest import Approve, report

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return Application(services.config, services).flask.test_client()


def page(client: FlaskClient, address: str = "127.0.0.1") -> str:
    answer = client.get("/metrics", environ_base={"REMOTE_ADDR": address})
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_numbers_follow_what_happens(committing: Services, approve: Approve) -> None:
    """Agents by state, committed samples and duplicates are counted."""
    client = Application(committing.config, committing).flask.test_client()
    committing.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    agent = approve()
    same = report(committing, agent, 1, [1, 2])
    committing.ingest.submit(agent.no, same)
    committing.ingest.submit(agent.no, same)

    now = values(page(client))

    assert now["pingmon_server_agents", ("approved",)] == 1
    assert now["pingmon_server_agents", ("pending",)] == 0
    assert now["pingmon_server_results_received_total", ()] == 2
    assert now["pingmon_server_rounds_duplicate_total", ()] == 1
    assert now["pingmon_server_results_rejected_total", ("E_STATE",)] == 0
    assert now["pingmon_server_storage_oldest_result_timestamp_seconds", ()] == committing.clock.wall_ms() / 1000


def test_every_metric_is_in_the_docs(client: FlaskClient) -> None:
    """docs/metrics.md has a line for each name the server exports."""
    names = set(re.findall(r"^# TYPE (pingmon_\w+)", page(client), re.MULTILINE))
    documented = set(re.findall(r"`(pingmon_server_\w+)`", (DOCS / "metrics.md").read_text()))

    assert names
    assert names == documented - {"pingmon_server_storage_oldest_result_timestamp_seconds"}


def test_strangers_do_not_read_the_topology(client: FlaskClient) -> None:
    """Only `metrics.allow` and admins see names; the refusal says what to do. Mapped addresses count as IPv4."""
    refused = client.get("/metrics", environ_base={"REMOTE_ADDR": "192.0.2.9"})

    assert refused.status_code == 403
    assert (
        refused.get_data(as_text=True) == "add this address to metrics.allow in server.toml, or sign in as an admin\n"
    )
    assert page(client, "::1")
    assert page(client, "::ffff:127.0.0.1")


def test_the_allow_list_is_what_it_says(services: Services, tmp_path: Path) -> None:
    """A network in the list may scrape, loopback then may not."""
    config = build({"server": {"data_dir": str(tmp_path / "data")}, "metrics": {"allow": "192.0.2.0/24"}}, {})
    import dataclasses

    client = Application(config, dataclasses.replace(services, config=config)).flask.test_client()

    assert page(client, "192.0.2.9")
    assert client.get("/metrics", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 403


def test_health_and_readiness_are_open_to_all(client: FlaskClient, services: Services) -> None:
    """A load balancer needs no password; a lost database shows in readiness, not in health."""
    assert client.get("/-/healthy").status_code == client.get("/-/ready").status_code == 200

    for file in services.config.data_dir.glob("samples.db*"):
        file.unlink()

    assert client.get("/-/healthy").status_code == 200
    assert client.get("/-/ready").status_code == 503
    assert page(client)
