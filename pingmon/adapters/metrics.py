"""`/metrics`, `/-/healthy`, `/-/ready` of the server.

Numbers are read when somebody asks; per pair nothing is exported here, for the agents' own pages do that.
docs/metrics.md describes every name. Must not know: how anything is measured or stored.
"""

from __future__ import annotations

import ipaddress
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pingmon.concurrency import mode, run_blocking
from pingmon.services.bundle import Services
from pingmon.services.errors import Unavailable
from pingmon.services.health import DIRECTORY, SAMPLES
from pingmon.services.pressure import MAX_WAITING_SAMPLES
from pingmon.store.rounds import StoreError
from pingmon.store.slots import HOUR_MS
from pingmon_agent.wire.contract import ErrorCode, State

STATES = (State.PENDING, State.APPROVED, State.HOLD, State.BLACKLISTED)


@dataclass(frozen=True)
class Outside:
    """What only the wiring knows: numbers of other adapters, and when the certificate ends (unix seconds)."""

    agents: Callable[[], int]
    browsers: Callable[[], int]
    bad_connections: Callable[[], int]
    refused_connections: Callable[[], int]
    cuts: Callable[[], dict[str, int]]
    job_failures: Callable[[], int]
    handler_faults: Callable[[], int]
    certificate_not_after: Callable[[], float]
    certificate_failures: Callable[[], int]
    reload_successful: Callable[[], bool]
    reload_succeeded_at: Callable[[], float]


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pingmon_server_{name}", help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"pingmon_server_{name}", help_text, value=value)


class ServerCollector:
    """Everything about this process, asked for at each scrape."""

    def __init__(self, services: Services, outside: Outside) -> None:
        self._services, self._outside = services, outside

    def collect(self) -> Iterator[Metric]:
        """All families."""
        build = {"version": version("pingmon"), "python_version": platform.python_version(), "async_mode": mode()}
        yield InfoMetricFamily("pingmon_server_build", "Build of the running server, value is always 1.", value=build)
        yield from self._agents()
        yield from self._ingest()
        yield from self._storage()
        yield from self._process()

    def _agents(self) -> Iterator[Metric]:
        registry = self._services.registry
        states = GaugeMetricFamily("pingmon_server_agents", "Number of known agents by state.", labels=["state"])
        for state in STATES:
            states.add_metric([state], sum(1 for a in registry.agents() if a.state is state))
        yield states
        connected = GaugeMetricFamily(
            "pingmon_server_agent_connected", "Whether the agent's control connection is up.", labels=["agent"]
        )
        newest = GaugeMetricFamily(
            "pingmon_server_agent_last_report_timestamp_seconds",
            "Start of the newest round received from the agent.",
            labels=["agent"],
        )
        offsets = GaugeMetricFamily(
            "pingmon_server_agent_clock_offset_seconds",
            "The agent's clock minus the server's, as far as the way lets one tell.",
            labels=["agent"],
        )
        refused = GaugeMetricFamily(
            "pingmon_server_agent_targets_refused", "Targets that the agent's host refuses to ping.", labels=["agent"]
        )
        for agent in self._services.grid.layout.agents:
            refused.add_metric([agent.hostname], self._services.refusals.count(agent.no))
            offset_ms = self._services.clocks.offset_ms(agent.no)
            if offset_ms is not None:
                offsets.add_metric([agent.hostname], offset_ms / 1000)
            connected.add_metric([agent.hostname], agent.no in registry.connected)
            newest.add_metric([agent.hostname], self._services.recent.newest_ms(agent.no) / 1000)
        yield connected
        yield newest
        yield refused
        yield offsets
        yield from self._completeness()
        pairs = sum(len(set(s.target_ids)) for s in registry.snapshot.sets.values())
        yield _gauge("pairs", "Number of configured source and target pairs.", pairs)
        yield _gauge("targets", "Number of targets.", len(registry.targets()))
        revision = registry.snapshot.revision
        yield _gauge("config_generation", "Revision of agents and targets that is in force.", revision)

    def _completeness(self) -> Iterator[Metric]:
        expected = GaugeMetricFamily(
            "pingmon_server_agent_rounds_expected", "Rounds that were due in the last hour.", labels=["agent"]
        )
        missing = GaugeMetricFamily(
            "pingmon_server_agent_rounds_missing", "Rounds of the last hour that are not there.",
            labels=["agent", "reason"],
        )  # fmt: skip
        views = self._services.grid.layout.agents
        try:
            totals = self._services.completeness.totals(views, HOUR_MS)
        except Unavailable:
            return  # storage_errors_total and readiness tell; a scrape must not fail because of it
        for view in views:
            expected.add_metric([view.hostname], totals[view.no].expected)
            for reason, rounds in totals[view.no].reasons.items():
                missing.add_metric([view.hostname, reason], rounds)
        yield expected
        yield missing

    def _ingest(self) -> Iterator[Metric]:
        counters, pressure = self._services.ingest.counters, self._services.ingest.pressure
        yield _counter("results_received", "Samples accepted from agents and committed.", counters.samples)
        yield _counter("rounds_duplicate", "Rounds received again and left out.", counters.duplicates)
        yield _counter("rounds_late", "Rounds that came late: stored, never shown as live.", counters.late)
        rejected = CounterMetricFamily(
            "pingmon_server_results_rejected", "Messages and samples refused, by code.", labels=["reason"]
        )
        for code in ErrorCode:
            rejected.add_metric([code], counters.rejected.get(code, 0))
        yield rejected
        yield _gauge("ingest_queue_results", "Samples waiting to be stored.", pressure.waiting_samples)
        yield _gauge("ingest_queue_limit_results", "Capacity of the ingest queue.", MAX_WAITING_SAMPLES)
        yield _gauge("ingest_queue_seconds", "Seconds of work that wait in it.", pressure.work_s)
        yield _counter("storage_commits", "Group commits of samples.", counters.commits)
        yield _counter("storage_write_seconds", "Time spent in these commits.", counters.commit_seconds)
        yield _counter("storage_errors", "Commits of samples that failed.", counters.errors)
        yield _counter("compacted_rounds", "Rounds put into compressed chunks.", self._services.compaction.rounds)
        yield _gauge("recent_results", "Samples of the last hour held in memory.", self._services.recent.samples)

    def _storage(self) -> Iterator[Metric]:
        degraded = GaugeMetricFamily(
            "pingmon_server_storage_degraded", "Whether this database cannot be written.", labels=["database"]
        )
        failing = {trouble.database for trouble in self._services.health.troubles()}
        for database in (SAMPLES, DIRECTORY):
            degraded.add_metric([database], database in failing)
        yield degraded
        try:
            facts = run_blocking(self._services.rounds.facts)
        except StoreError:
            return  # storage_errors_total tells; a scrape must not fail because of it
        yield _gauge("storage_size_bytes", "Size of the sample database.", facts.size_bytes)
        if facts.oldest_ms is not None:
            yield _gauge(
                "storage_oldest_result_timestamp_seconds", "Time of the oldest stored round.", facts.oldest_ms / 1000
            )

    def _process(self) -> Iterator[Metric]:
        outside = self._outside
        clients = GaugeMetricFamily(
            "pingmon_server_websocket_clients", "Open live connections by kind.", labels=["kind"]
        )
        clients.add_metric(["agent"], outside.agents())
        clients.add_metric(["browser"], outside.browsers())
        yield clients
        yield _counter("bad_connections", "TLS handshakes and connections that broke.", outside.bad_connections())
        refused = outside.refused_connections()
        yield _counter("refused_connections", "Connections turned away before TLS: too many.", refused)
        cuts = CounterMetricFamily("pingmon_server_cut_connections", "Live connections cut.", labels=["reason"])
        for reason, count in outside.cuts().items():
            cuts.add_metric([reason], count)
        yield cuts
        yield _counter("job_failures", "Scheduled jobs that failed.", outside.job_failures())
        yield _counter("handler_faults", "Agent messages on which the server itself failed.", outside.handler_faults())
        expiry = GaugeMetricFamily(
            "pingmon_server_tls_certificate_not_after_timestamp_seconds",
            "Expiry time of the certificates in use.",
            labels=["usage"],
        )
        expiry.add_metric(["server"], outside.certificate_not_after())
        yield expiry
        failures = outside.certificate_failures()
        yield _counter("tls_reload_failures", "Times a new certificate could not be taken over.", failures)
        successful = outside.reload_successful()
        yield _gauge(
            "config_last_reload_successful", "Whether the configuration could be read the last time.", successful
        )
        yield _gauge(
            "config_last_reload_success_timestamp_seconds",
            "Time of the last successful reading of the configuration.",
            outside.reload_succeeded_at(),
        )


def blueprint(services: Services, outside: Outside, may_read: Callable[[], bool]) -> Blueprint:
    """The three pages. `/metrics` answers networks of `metrics.allow` and whoever `may_read` lets in."""
    pages = Blueprint("metrics", __name__)
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, ServerCollector(services, outside)):
        registry.register(collector)
    networks = services.config.metrics_networks

    @pages.get("/metrics")
    def metrics() -> Any:
        if not (_inside(request.remote_addr, networks) or may_read()):
            return _text("add this address to metrics.allow in server.toml, or sign in as an admin\n", 403)
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @pages.get("/-/healthy")
    def healthy() -> Any:
        return _text("pingmon server is running\n", 200)

    @pages.get("/-/ready")
    def ready() -> Any:
        try:
            run_blocking(services.rounds.check)
        except StoreError as error:
            return _text(f"the sample database cannot be read: {error}\n", 503)
        if (sentence := services.health.sentence) is not None:
            return _text(f"{sentence}\n", 503)
        return _text("pingmon server is ready\n", 200)

    return pages


def _inside(address: str | None, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in networks)


def _text(body: str, status: int) -> Response:
    return Response(body, status=status, content_type="text/plain; charset=utf-8")
