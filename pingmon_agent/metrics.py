"""The agent's own web pages: /metrics for Prometheus, /-/healthy, /-/ready, and a landing page that names them.

Values are read when somebody asks (`Facts` is a snapshot made by the agent), so nothing here slows a round down.
Must not know: how any of the numbers come about.
"""

from __future__ import annotations

import json
import logging
import platform
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .log import say
from .pairs import Pairs

_log = logging.getLogger(__name__)
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_ERROR_REASONS = ("send", "resolve", "permission", "unreachable", "other")

# name, type, labels, help: docs/metrics.md must have a line for each.
AGENT_METRICS = (
    ("pingmon_agent_build_info", "gauge", ("version", "python_version"), "Build of the running agent, always 1."),
    ("pingmon_agent_ping_mode_info", "gauge", ("mode", "timestamping"), "How echo requests are sent and stamped."),
    ("pingmon_agent_targets", "gauge", ("state",), "Number of targets by state (active, unresolved, refused)."),
    ("pingmon_agent_config_generation", "gauge", (), "Generation of the target list in use, as the server numbers it."),
    (
        "pingmon_agent_config_last_reload_successful",
        "gauge",
        (),
        "Whether the configuration could be read the last time.",
    ),
    (
        "pingmon_agent_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Time of the last successful reading of the configuration.",
    ),
    ("pingmon_agent_session_state", "gauge", ("state",), "Where the agent stands with its server: 1 for that state."),
    ("pingmon_agent_server_connected", "gauge", (), "Whether the connection to the server is up."),
    ("pingmon_agent_server_reconnects_total", "counter", (), "Times the connection was established again."),
    ("pingmon_agent_server_connect_failures_total", "counter", (), "Attempts to connect that failed."),
    ("pingmon_agent_reports_total", "counter", (), "Reports the server has acknowledged."),
    ("pingmon_agent_reports_refused_total", "counter", ("code",), "Reports the server refused, by error code."),
    ("pingmon_agent_spool_results", "gauge", (), "Results waiting to be delivered to the server."),
    ("pingmon_agent_spool_limit_results", "gauge", (), "Capacity of the result spool."),
    ("pingmon_agent_spool_dropped_total", "counter", (), "Results that expired before the server had them."),
    (
        "pingmon_agent_spool_degraded",
        "gauge",
        (),
        "Whether results are kept in memory only, as files cannot be written.",
    ),
    ("pingmon_agent_spool_size_bytes", "gauge", (), "Size of the files that results are kept in, delivered or not."),
    ("pingmon_agent_spool_limit_bytes", "gauge", (), "Most that these files may take; 0 for in memory only."),
    ("pingmon_agent_spool_write_failures_total", "counter", (), "Times these files could not be written."),
    ("pingmon_agent_spool_damaged_total", "counter", ("what",), "Damaged blocks skipped, and whole files set aside."),
    ("pingmon_agent_rounds_total", "counter", (), "Rounds of probes made."),
    ("pingmon_agent_rounds_disturbed_total", "counter", (), "Rounds in which this host itself was late or starved."),
    ("pingmon_agent_rounds_skipped_total", "counter", (), "Rounds that were due but never started."),
    ("pingmon_agent_probe_errors_total", "counter", ("reason",), "Probes that failed for a local or routing reason."),
    ("pingmon_agent_duplicate_replies_total", "counter", (), "Replies received more than once."),
    ("pingmon_agent_late_replies_total", "counter", (), "Replies received after the timeout."),
    ("pingmon_agent_foreign_packets_total", "counter", (), "ICMP packets received that answer no probe of this agent."),
    ("pingmon_agent_wrong_source_total", "counter", (), "Replies right in all but the address they came from."),
    ("pingmon_agent_corrupt_replies_total", "counter", (), "Replies to probes of this agent that came back damaged."),
    (
        "pingmon_agent_icmp_errors_total",
        "counter",
        ("version", "type", "code"),
        "ICMP errors about probes of this agent, by IP version, type and code.",
    ),
    ("pingmon_agent_receive_overflow_total", "counter", (), "Packets dropped as the socket's buffer was full."),
    ("pingmon_agent_unstamped_total", "counter", (), "Packets the kernel gave no time stamp, timed by the agent."),
    ("pingmon_agent_identity_changes_total", "counter", (), "Times the agent took other ICMP ids."),
    ("pingmon_agent_suspends_total", "counter", (), "Rounds during which this host was suspended."),
    ("pingmon_agent_clock_steps_total", "counter", (), "Rounds voided because the clock of this host was set."),
    ("pingmon_agent_bugs_total", "counter", (), "Unexpected exceptions survived."),
    ("pingmon_agent_schedule_lag_seconds", "histogram", (), "Delay between planned and actual start of a round."),
    (
        "pingmon_agent_tls_certificate_not_after_timestamp_seconds",
        "gauge",
        ("usage",),
        "Expiry time of the certificates in use (server).",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One look at the agent. `values`: metric name -> value, or label values -> value; `not_ready`: why, if so."""

    values: dict[str, float | dict[tuple[str, ...], float]]
    not_ready: tuple[str, ...]
    status: dict[str, object] = field(default_factory=dict)


class _Collector:
    """Makes families out of Facts at each scrape."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        values = self._facts().values
        for name, kind, labels, help_text in AGENT_METRICS:
            if name not in values:
                continue
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, help_text, labels=labels)
            value = values[name]
            for label_values, number in value.items() if isinstance(value, dict) else [((), value)]:
                family.add_metric(label_values, number)
            yield family


class Metrics:
    """Registry and page; `lag` is the one value that is observed as it happens."""

    def __init__(self, facts: Callable[[], Facts], pairs: Pairs) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it unannotated
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        name, _, _, help_text = next(m for m in AGENT_METRICS if m[1] == "histogram")
        self.lag = prometheus_client.Histogram(name, help_text, buckets=LAG_BUCKETS_S, registry=self._registry)
        self._registry.register(_Collector(facts))
        self.facts, self._pairs = facts, pairs

    def page(self) -> str:
        """The whole /metrics page."""
        return prometheus_client.generate_latest(self._registry).decode() + self._pairs.render()


def build_labels(version: str) -> dict[tuple[str, ...], float]:
    """Value of pingmon_agent_build_info."""
    return {(version, platform.python_version()): 1.0}


def error_reasons(
    send: float, resolve: float, permission: float, unreachable: float, other: float
) -> dict[tuple[str, ...], float]:
    """Value of pingmon_agent_probe_errors_total: all reasons present, from 0 on."""
    return {
        (reason,): n for reason, n in zip(_ERROR_REASONS, (send, resolve, permission, unreachable, other), strict=True)
    }


_LANDING = """<!doctype html><html lang="en"><title>pingmon agent</title><h1>pingmon agent</h1>
<ul><li><a href="/metrics">/metrics</a> for Prometheus<li><a href="/-/healthy">/-/healthy</a>: the process lives
<li><a href="/-/ready">/-/ready</a>: approved, targets loaded, ICMP socket open</ul></html>
"""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "pingmon-agent", ""
    timeout = 10

    def do_GET(self) -> None:
        """Answer one of the four pages."""
        page = {
            "/": lambda: (200, "text/html; charset=utf-8", _LANDING),
            "/metrics": lambda: (200, TEXT_TYPE, self.server.metrics.page()),
            "/-/healthy": lambda: (200, TEXT_TYPE, "healthy\n"),
            "/-/ready": self._ready,
        }.get(self.path.partition("?")[0])
        if page is None:
            self._answer(404, TEXT_TYPE, "no such page; see / for those there are\n")
            return
        self._answer(*page())

    def _ready(self) -> tuple[int, str, str]:
        facts = self.server.metrics.facts()
        body = {"ready": not facts.not_ready, "why_not": list(facts.not_ready), **facts.status}
        return (503 if facts.not_ready else 200), "application/json", json.dumps(body, indent=1) + "\n"

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Scrapes are not events: say them at debug only."""
        _log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = 1.0  # for a caller that is gone before it is accepted

    def __init__(self, address: tuple[str, int], metrics: Metrics) -> None:
        self.metrics = metrics
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)


class MetricsServer:
    """Serves the pages from a thread of its own; raises OSError if the address is taken."""

    def __init__(self, address: tuple[str, int], metrics: Metrics) -> None:
        self._server = _Server(address, metrics)
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port in use (the one asked for, or a free one for 0)."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        _log.info(say("metrics served", port=self.port))

    def _serve(self) -> None:
        """Until woken by `stop`. serve_forever wakes up on its own and costs as much as probing 200 targets."""
        poll = select.poll()
        for waited in (self._server, self._wake):
            poll.register(waited.fileno(), select.POLLIN)
        while self._wake.fileno() not in dict(poll.poll()):
            self._server.handle_request()

    def stop(self) -> None:
        """Close the port."""
        self._waker.send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        self._server.server_close()
        self._wake.close()
        self._waker.close()
