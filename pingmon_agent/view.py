"""What the agent shows of itself: its state in words, and the values of its own metrics.

Reads what the parts know when somebody asks, from any thread, and changes nothing. Must not know: pages, systemd.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .config import Config
from .delivery import Delivery
from .door import Door
from .engine import EchoEngine
from .journal import Journal, JournalCounts
from .metrics import Facts, build_labels, error_reasons
from .reload import Reload
from .ring import Ring
from .rounds import Rounds
from .schedule import Schedule
from .session import SessionState
from .uplink import Uplink
from .wire.contract import Outcome
from .wire.seal import grouped


@dataclass(kw_only=True)
class View:
    """The parts of a running agent; `engine` comes once its sockets are open, `room` is in samples."""

    version: str
    config: Config
    door: Door
    schedule: Schedule
    rounds: Rounds
    ring: Ring
    journal: Journal | None
    delivery: Delivery
    uplink: Uplink
    room: int
    reload: Reload
    engine: EchoEngine | None = None

    def facts(self) -> Facts:
        """One look at everything."""
        return Facts(values=self._values(), not_ready=self._not_ready(), status=self._status())

    def _not_ready(self) -> tuple[str, ...]:
        reasons = []
        if self.engine is None:
            reasons.append("the ICMP socket is not open")
        if self.delivery.state is not SessionState.APPROVED:
            reasons.append(f"the server has not approved this agent now (state {self.delivery.state})")
        if self.schedule.current is None:
            reasons.append("no targets are loaded")
        return tuple(reasons)

    def line(self) -> str:
        """How the agent is, in one line."""
        current = self.schedule.current
        connected = "connected" if self.uplink.counts.connected else "not connected"
        return f"{self.delivery.state}, {len(current.targets) if current else 0} targets, {connected}"

    def _status(self) -> dict[str, object]:
        current = self.schedule.current
        return {
            "version": self.version,
            "hostname": self.config.agent.hostname,
            "server": self.config.server.url,
            "connected": self.uplink.counts.connected,
            "state": str(self.delivery.state),
            "agent_id": self.delivery.agent_id,
            "identity": grouped(self.door.keep.identity.fingerprint),
            "server_identity": self.door.keep.pin,
            "targets": len(current.targets) if current else 0,
            "revision": current.revision if current else None,
            "unresolved": self.rounds.unresolved,
            "refused_by_policy": self.rounds.refused,
            "rounds": self.rounds.counts.done,
            "undelivered_results": self.ring.waiting(),
            "buffer": self._buffer(),
        }

    def _buffer(self) -> str:
        files = self.journal
        if files is None:
            return "memory"
        if not files.healthy:
            return f"memory only, {files.directory} cannot be written: {files.reason}"
        return f"{files.directory}, {files.size / 2**20:.1f} of {files.max_bytes // 2**20} MiB"

    def _values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        values = {**self._probe_values(), **self._uplink_values(), **self._spool_values(), **self._reload_values()}
        return {f"pingmon_agent_{name}": value for name, value in values.items()}

    def _probe_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        current, counts = self.schedule.current, self.rounds.counts
        total = len(current.targets) if current else 0
        unresolved = min(self.rounds.unresolved, total)
        refused = min(self.rounds.refused, total - unresolved)
        values: dict[str, float | dict[tuple[str, ...], float]] = {
            "build_info": build_labels(self.version),
            "targets": {
                ("active",): total - unresolved - refused,
                ("unresolved",): unresolved,
                ("refused",): refused,
            },
            "config_generation": current.revision if current else 0,
            "rounds_total": counts.done,
            "rounds_disturbed_total": counts.disturbed,
            "rounds_skipped_total": counts.skipped,
        }
        if self.engine is not None:
            tally = self.engine.tally
            outcomes, errors = self.rounds.outcomes, list(tally.send_errors.items())
            denied = sum(n for e, n in errors if e in (errno.EPERM, errno.EACCES))
            values |= {
                "ping_mode_info": {(self.engine.mode, "kernel"): 1},
                "duplicate_replies_total": tally.duplicates,
                "late_replies_total": tally.late,
                "foreign_packets_total": tally.foreign,
                "receive_overflow_total": tally.overflow,
                "wrong_source_total": tally.wrong_source,
                "corrupt_replies_total": tally.corrupt,
                "icmp_errors_total": {tuple(map(str, key)): n for key, n in list(tally.icmp_errors.items())},
                "unstamped_total": tally.unstamped,
                "identity_changes_total": tally.identities,
                "suspends_total": tally.suspends,
                "clock_steps_total": tally.clock_steps,
                "probe_errors_total": error_reasons(
                    send=sum(n for _, n in errors) - denied,
                    resolve=outcomes[Outcome.UNRESOLVED],
                    permission=denied,
                    unreachable=outcomes[Outcome.UNREACHABLE] + outcomes[Outcome.TTL_EXCEEDED],
                    other=outcomes[Outcome.NOT_PROBED],
                ),
            }
        return values

    def _uplink_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        uplink, delivered = self.uplink.counts, self.delivery.counts
        values: dict[str, float | dict[tuple[str, ...], float]] = {
            "session_state": {(str(s),): float(s is self.delivery.state) for s in SessionState},
            "server_connected": float(uplink.connected),
            "server_reconnects_total": max(0, uplink.connections - 1),
            "server_connect_failures_total": uplink.failures,
            "reports_total": delivered.reports,
            "reports_refused_total": {(code,): n for code, n in list(delivered.refused.items())},
            "bugs_total": uplink.faults + self.rounds.counts.faults,
        }
        if uplink.certificate_expires:
            values["tls_certificate_not_after_timestamp_seconds"] = {("server",): uplink.certificate_expires}
        return values

    def _spool_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        files = self.journal
        counts = files.counts if files is not None else JournalCounts()
        return {
            "spool_results": self.ring.waiting(),
            "spool_limit_results": self.room,
            "spool_dropped_total": self.ring.dropped,
            "spool_degraded": float(files is not None and not files.healthy),
            "spool_size_bytes": files.size if files is not None else 0,
            "spool_limit_bytes": files.max_bytes if files is not None else 0,
            "spool_write_failures_total": counts.failures,
            "spool_damaged_total": {("block",): counts.damaged, ("file",): counts.set_aside},
        }

    def _reload_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        return {
            "config_last_reload_successful": float(self.reload.successful),
            "config_last_reload_success_timestamp_seconds": self.reload.succeeded_at,
        }
