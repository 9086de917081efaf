"""The dashboard "Pingmon / Mesh": which path is bad, since when, and whether agents and server can be believed.

Loss and latency of each pair come from the recorded series of prometheus/pingmon-rules.yml, all else from raw metrics.
"""

from __future__ import annotations

from typing import Any

from .shapes import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Json,
    Steps,
    board,
    choice,
    coloured,
    fields,
    lines,
    override,
    query,
    side_by_side,
    stat,
    table,
    timeline,
)

PAIR = 'source=~"$source",target=~"$target"'
AGENT = 'agent=~"$source"'
LOSS = f"max by (source, target) (source_target:pingmon_ping_loss:ratio_rate5m{{{PAIR}}})"
P95 = f"max by (source, target) (source_target:pingmon_ping_rtt_seconds:p95_rate5m{{{PAIR}}})"
ALERT_LABELS = ("alertname", "alertstate", "severity", "agent", "instance", "source", "target")
ABOUT_END = "Days until the server's certificate ends; the roles renew it below 30."
LOSS_STEPS = ((None, GREEN), (0.01, YELLOW), (0.05, ORANGE), (0.2, RED))
SHARE_STEPS = ((None, GREEN), (0.01, ORANGE), (0.05, RED))
STACKED = {"group": "A", "mode": "normal"}
FILLED = {"fillOpacity": 70, "lineWidth": 0}
MATRIX = {
    "id": "groupingToMatrix",
    "options": {"columnField": "target", "emptyValue": "empty", "rowField": "source", "valueField": "Value"},
}


def dashboard() -> Json:
    """All of it."""
    variables = [
        choice("source", "Agent", "label_values(pingmon_ping_up, source)"),
        choice("target", "Target", 'label_values(pingmon_ping_up{source=~"$source"}, target)'),
    ]
    about = "The mesh of pingmon: paths, targets, agents. Needs the recording rules that come with it."
    rows = [
        [*_numbers_of_paths(), *_numbers_of_programs()],
        [_loss_matrix(), _time_matrix()],
        [_targets()],
        [_times(), _lost()],
        [_worst(), _missing()],
        [_connections(), _clocks(), _spools()],
        [_versions(), _alerts()],
    ]
    return board("pingmon-mesh", "Pingmon / Mesh", about, variables, rows)


def _rate(metric: str, how: str = "rate") -> str:
    return f"{how}({metric}{{{PAIR}}}[$__rate_interval])"


def _share_lost() -> str:
    lost, came = _rate("pingmon_ping_lost_total"), _rate("pingmon_ping_rtt_seconds_count")
    return f"sum({lost}) / (sum({lost}) + sum({came}))"


def _number(title: str, description: str, expr: str, unit: str, steps: Steps, **more: Any) -> Json:
    return stat(title, description, [query(expr, instant=True)], fields(unit, steps, **more))


def _numbers_of_paths() -> list[Json]:
    return [
        _number(
            "Targets reachable",
            "Share of targets that answer at least half of the agents that ping them.",
            f"avg(avg by (target) (pingmon_ping_up{{{PAIR}}}) >= bool 0.5)",
            "percentunit",
            ((None, RED), (0.95, ORANGE), (1, GREEN)),
        ),
        _number(
            "Paths down",
            "Pairs of agent and target without a reply to three probes in a row.",
            f"sum(pingmon_ping_up{{{PAIR}}} == bool 0)",
            "short",
            ((None, GREEN), (1, RED)),
        ),
        _number(
            "Packet loss",
            "Share of all probes that got no reply in time.",
            _share_lost(),
            "percentunit",
            SHARE_STEPS,
            decimals=2,
        ),
    ]


def _numbers_of_programs() -> list[Json]:
    connected = query("sum(pingmon_server_agent_connected)", "connected", instant=True)
    approved = query('sum(pingmon_server_agents{state="approved"})', "approved", ref="B", instant=True)
    missing, due = (f"sum(pingmon_server_agent_rounds_{what}{{{AGENT}}})" for what in ("missing", "expected"))
    left = "(min(pingmon_server_tls_certificate_not_after_timestamp_seconds) - time()) / 86400"
    return [
        _number(
            "Rounds missing",
            "Share of the rounds due in the last hour that the server does not have, whatever the reason.",
            f"{missing} / ({due} > 0)",
            "percentunit",
            SHARE_STEPS,
            decimals=2,
            noValue="none due",
        ),
        stat(
            "Agents",
            "Approved agents, and how many of them are connected to the server.",
            [connected, approved],
            fields("short", ((None, BLUE),)),
        ),
        _number("Certificate ends in", ABOUT_END, left, "d", ((None, RED), (7, ORANGE), (21, GREEN)), decimals=0),
    ]


def _loss_matrix() -> Json:
    return table(
        "Loss: agents (rows) and targets (columns)",
        "Share of probes lost in the last five minutes. Red row: agent. Red column: target. Lone cell: path.",
        [query(LOSS, table=True)],
        coloured(fields("percentunit", LOSS_STEPS, decimals=1)),
        size=(12, 10),
        transformations=[MATRIX],
    )


def _time_matrix() -> Json:
    return table(
        "Round-trip time (p95): agents (rows) and targets (columns)",
        "95th percentile of the last five minutes, as exact as the buckets of the histogram.",
        [query(P95, table=True)],
        coloured(fields("s", decimals=1) | {"color": {"mode": "continuous-BlPu"}}),
        size=(12, 10),
        transformations=[MATRIX],
    )


def _targets() -> Json:
    return timeline(
        "Targets over time",
        "Share of the agents that reach each target. Below a half, PingmonTargetDown fires.",
        [query(f"avg by (target) (pingmon_ping_up{{{PAIR}}})", "{{target}}")],
        fields("percentunit", ((None, RED), (0.5, ORANGE), (0.99, GREEN)), custom=FILLED),
    )


def _times() -> Json:
    buckets = f"sum by (target, le) ({_rate('pingmon_ping_rtt_seconds_bucket')})"
    return lines(
        "Round-trip time per target",
        "Median and 95th percentile over all agents.",
        [
            query(f"histogram_quantile(0.5, {buckets})", "{{target}} p50"),
            query(f"histogram_quantile(0.95, {buckets})", "{{target}} p95", ref="B"),
        ],
        "s",
    )


def _lost() -> Json:
    return lines(
        "Lost packets per target",
        "Probes without a reply in time, of all agents, in each step of the graph.",
        [query(f"sum by (target) ({_rate('pingmon_ping_lost_total', 'increase')})", "{{target}}")],
        "short",
        drawStyle="bars",
        fillOpacity=60,
        stacking=STACKED,
    )


def _worst() -> Json:
    return table(
        "Worst paths",
        "The twenty paths with the most loss in the last five minutes, and their 95th percentile.",
        [query(f"topk(20, {LOSS})", table=True), query(f"{P95} and topk(20, {LOSS})", ref="B", table=True)],
        fields("percentunit", LOSS_STEPS, decimals=1),
        size=(12, 9),
        sort="loss",
        overrides=[
            override("loss", custom__cellOptions={"mode": "basic", "type": "color-background"}),
            override("p95", unit="s"),
        ],
        transformations=side_by_side("loss", "p95"),
    )


def _missing() -> Json:
    return lines(
        "Rounds missing, by reason",
        "Of the last hour at each moment; docs/operations.md explains the reasons.",
        [query(f"sum by (reason) (pingmon_server_agent_rounds_missing{{{AGENT}}})", "{{reason}}")],
        "short",
        fillOpacity=30,
        stacking=STACKED,
    )


def _connections() -> Json:
    words = {"0": {"color": RED, "text": "away"}, "1": {"color": GREEN, "text": "connected"}}
    return timeline(
        "Connections of agents",
        "Whether each approved agent is connected to the server.",
        [query(f"min by (agent) (pingmon_server_agent_connected{{{AGENT}}})", "{{agent}}")],
        fields("short", custom=FILLED) | {"mappings": [{"options": words, "type": "value"}]},
        width=8,
    )


def _clocks() -> Json:
    return lines(
        "Clock offset",
        "Each agent's clock minus the server's. From a second on, PingmonAgentClockOffset fires.",
        [query(f"pingmon_server_agent_clock_offset_seconds{{{AGENT}}}", "{{agent}}")],
        "s",
        width=8,
        least=None,
    )


def _spools() -> Json:
    share = "pingmon_agent_spool_results / pingmon_agent_spool_limit_results"
    return lines(
        "Results waiting at agents",
        "How full the buffer of each agent is. Rounds older than 30 minutes are given up.",
        [query(f"max by (instance) ({share})", "{{instance}}")],
        "percentunit",
        width=8,
    )


def _versions() -> Json:
    return table(
        "Versions",
        "How many agents and servers run each version.",
        [
            query("count by (version) (pingmon_agent_build_info)", table=True),
            query("count by (version) (pingmon_server_build_info)", ref="B", table=True),
        ],
        fields("short"),
        size=(8, 6),
        transformations=side_by_side("agents", "servers"),
    )


def _alerts() -> Json:
    return table(
        "Alerts",
        "Alerts of pingmon that fire or wait for their time; docs/runbooks says what to do about each.",
        [query(f'sum by ({", ".join(ALERT_LABELS)}) (ALERTS{{alertname=~"Pingmon.*"}})', table=True)],
        fields("short", noValue="none"),
        size=(16, 6),
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}],
    )
