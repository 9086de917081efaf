"""Every query of every dashboard, answered by a real Prometheus that scrapes a real server and agent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.support.processes import Agent, free_port, running_server, wait_for, write_agent
from tests.support.prometheus import Prometheus, running_prometheus

from .sources import RULES, alerts, dashboards, queries

pytestmark = pytest.mark.e2e
TARGETS = (("gateway", "127.0.0.1"), ("resolver", "127.0.0.2"))
CHOICES = {"$__rate_interval": "5s", "$source": ".+", "$target": ".+"}
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: pingmon-server
    scheme: https
    tls_config: {{ca_file: {ca}}}
    static_configs: [{{targets: ["127.0.0.1:{server}"]}}]
  - job_name: pingmon-agent
    static_configs: [{{targets: ["127.0.0.1:{agent}"]}}]
"""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has begun to scrape a server and its agent, with our rules."""
    home, port = tmp_path_factory.mktemp("scraped"), free_port()
    with running_server(home / "server") as server:
        for name, address in TARGETS:
            server.admin("targets", "add", name, address)
        agent = Agent(server, home / "agent", "probe-1")
        write_agent(
            agent, url=server.url.replace("https", "wss"), ip_address="127.0.0.1", passphrase=server.passphrase()
        )
        agent.config.write_text(agent.config.read_text().replace('listen = ""', f'listen = "127.0.0.1:{port}"'))
        config = home / "prometheus.yml"
        config.write_text(CONFIG.format(rules=RULES, ca=server.ca_file, server=server.port, agent=port))
        agent.start()
        try:
            agent.approve()
            with running_prometheus(home, config) as found:
                yield found
        finally:
            agent.stop()


def test_every_query_has_an_answer(prometheus: Prometheus) -> None:
    """None is refused, and each finds something within half a minute, but for that of alerts: there may be none."""
    asked = [(title, _filled(expr)) for board in dashboards() for title, expr in queries(board)]

    def unanswered() -> list[str]:
        return [f"{title}: {expr}" for title, expr in asked if not prometheus.ask(expr) and title != "Alerts"]

    with contextlib.suppress(AssertionError):
        wait_for(lambda: not unanswered(), "an answer to every query", deadline_s=30, every_s=0.5)

    assert unanswered() == []


def test_every_alert_can_be_evaluated(prometheus: Prometheus) -> None:
    """On what is really scraped, no expression of an alert meets labels that do not fit together."""

    def health() -> dict[str, str]:
        groups = json.loads(prometheus.get("/api/v1/rules?type=alert")[1])["data"]["groups"]
        return {rule["name"]: rule["health"] + rule.get("lastError", "") for group in groups for rule in group["rules"]}

    wait_for(lambda: "unknown" not in health().values(), "every alert to be evaluated", deadline_s=30, every_s=0.5)

    assert health() == dict.fromkeys(alerts(), "ok")


def test_the_numbers_are_those_of_the_mesh(prometheus: Prometheus) -> None:
    """Two targets on the loopback are up, lose nothing and take less than ten milliseconds."""
    assert [row["value"][1] for row in prometheus.ask("target:pingmon_ping_up:ratio")] == ["1", "1"]
    loss = prometheus.ask("source_target:pingmon_ping_loss:ratio_rate5m")
    assert [(row["metric"]["source"], row["metric"]["target"], row["value"][1]) for row in loss] == [
        ("probe-1", "gateway", "0"),
        ("probe-1", "resolver", "0"),
    ]
    slow = prometheus.ask("source_target:pingmon_ping_rtt_seconds:p95_rate5m > 0.5")
    assert slow == []


def _filled(expr: str) -> str:
    for name, value in CHOICES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr
