"""The agent's life on one page: load, open, start, wait, stop. The one place where the parts are wired together.

update_targets -> Schedule -> Engine -> Ring -> Delivery -> Uplink -> server
"""

from __future__ import annotations

import errno
import functools
import importlib.metadata
import logging
import signal
import threading
import time
from types import FrameType

from .answers import Answer, Patience
from .config import Config, listen_address
from .delivery import Delivery
from .door import Door
from .engine import EchoEngine
from .icmp import NoPermissionError
from .journal import Journal, JournalCounts
from .keep import keep_of
from .links import broadcasts
from .log import say
from .metrics import Facts, Metrics, MetricsServer, build_labels, error_reasons
from .pairs import Pairs
from .policy import Judge, policy_of
from .refusals import Refusals
from .resolve import Resolver
from .ring import Ring
from .rounds import Rounds
from .schedule import Schedule, Tick
from .session import SessionState
from .tls import ConnectError, client_context
from .uplink import Uplink
from .wire.contract import PLAIN_TAG, Handshake, Outcome
from .wire.seal import grouped

_log = logging.getLogger(__name__)
FLUSH_S = 0.8
SAMPLE_BYTES = 4
EXIT_OK, EXIT_FAILED, EXIT_UNAPPROVED = 0, 1, 3
_UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 - replaced by the address of the connection at each handshake


@functools.cache
def version() -> str:
    """The installed version."""
    return importlib.metadata.version("pingmon")


def boot_time() -> float:
    """Seconds on a clock that counts through suspend and is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Agent:
    """All parts of a running agent. `run` returns the exit code of the process."""

    def __init__(self, config: Config) -> None:
        """Raises BusyError if another agent keeps its rounds where this one is to keep them, KeyFileError."""
        self._door = Door(keep_of(config), _wall_ms)
        self._config, self._exit_code = config, EXIT_OK
        self._stop = threading.Event()
        self._engine: EchoEngine | None = None
        self._journal = _journal(config)
        self._room = config.agent.buffer_mib * 2**20 // SAMPLE_BYTES
        self._ring = Ring(boot_time, max_samples=self._room, journal=self._journal)
        self._resolver = Resolver()
        self._schedule = Schedule(config.agent.hostname, boot_time)
        self._pairs = Pairs(config.agent.hostname)
        self._judge = Judge(policy_of(config.probe.policy_file, config.probe.allow_loopback), broadcasts)
        self._rounds = Rounds(
            judge=self._judge,
            schedule=self._schedule,
            resolver=self._resolver,
            ring=self._ring,
            pairs=self._pairs,
            on_round=self._on_round,
            timeout_s=config.probe.timeout_ms / 1000,
            window_s=config.probe.window_ms / 1000,
        )
        refusals = Refusals(self._judge.verdicts, lambda: self._rounds.refused_names)
        self._delivery = Delivery(self._ring, _identity(config), self._schedule.offer, refusals, _wall_ms)
        self._uplink = Uplink(
            config.server,
            self._delivery,
            self._door,
            start_spread_s=config.agent.start_spread_s,
            on_answer=self._on_answer,
        )
        self._metrics = Metrics(self._facts, self._pairs)

    def run(self) -> int:
        """Load, open, start, wait, stop. SIGTERM and SIGINT end it cleanly within two seconds."""
        try:
            client_context(self._config.server.ca_file, self._config.server.minimum_tls)
            engine = self._engine = EchoEngine(self._stop)
            pages = self._open_pages()
        except (ConnectError, NoPermissionError, OSError) as err:
            _log.error(say("cannot start", reason=str(err)))
            return EXIT_FAILED
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        key = grouped(self._door.keep.identity.fingerprint)
        facts = {"hostname": self._config.agent.hostname, "key": key, "icmp": engine.mode, "families": engine.families}
        _log.info(say("agent started", version=version(), **facts))
        self._resolver.start()
        self._uplink.start()
        self._rounds.run(engine, self._stop)
        self._uplink.stop(FLUSH_S)
        self._resolver.stop()
        if pages is not None:
            pages.stop()
        engine.close()
        self._ring.close()
        _log.info(say("agent stopped", rounds=self._rounds.counts.done, undelivered=self._ring.waiting()))
        return self._exit_code

    def _open_pages(self) -> MetricsServer | None:
        address = listen_address(self._config.metrics.listen)
        if address is None:
            return None
        try:
            pages = MetricsServer(address, self._metrics)
        except OSError as err:
            taken = err.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({err.strerror})"
            message = f'metrics.listen {self._config.metrics.listen} {why}; set another address, or "" for none'
            raise OSError(message) from None
        pages.start()
        return pages

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal.signal calls it so
        self._stop.set()

    def _on_round(self, tick: Tick) -> None:
        self._metrics.lag.observe(tick.lag_s)
        self._uplink.notify()

    def _on_answer(self, answer: Answer) -> None:
        decided = answer.state is not SessionState.APPROVED and answer.patience is not Patience.SOON
        if self._config.agent.exit_when_unapproved and decided:  # a server in trouble has decided nothing
            _log.error(say("this agent is not approved and was told to end then", state=answer.state))
            self._exit_code = EXIT_UNAPPROVED
            self._stop.set()

    # -- what the agent's pages show --

    def _facts(self) -> Facts:
        return Facts(values=self._values(), not_ready=self._not_ready(), status=self._status())

    def _not_ready(self) -> tuple[str, ...]:
        reasons = []
        if self._engine is None:
            reasons.append("the ICMP socket is not open")
        if self._delivery.state is not SessionState.APPROVED:
            reasons.append(f"the server has not approved this agent now (state {self._delivery.state})")
        if self._schedule.current is None:
            reasons.append("no targets are loaded")
        return tuple(reasons)

    def _status(self) -> dict[str, object]:
        current = self._schedule.current
        return {
            "version": version(),
            "hostname": self._config.agent.hostname,
            "server": self._config.server.url,
            "connected": self._uplink.counts.connected,
            "state": str(self._delivery.state),
            "agent_id": self._delivery.agent_id,
            "identity": grouped(self._door.keep.identity.fingerprint),
            "server_identity": self._door.keep.pin,
            "targets": len(current.targets) if current else 0,
            "revision": current.revision if current else None,
            "unresolved": self._rounds.unresolved,
            "refused_by_policy": self._rounds.refused,
            "rounds": self._rounds.counts.done,
            "undelivered_results": self._ring.waiting(),
            "buffer": self._buffer(),
        }

    def _buffer(self) -> str:
        files = self._journal
        if files is None:
            return "memory"
        if not files.healthy:
            return f"memory only, {files.directory} cannot be written: {files.reason}"
        return f"{files.directory}, {files.size / 2**20:.1f} of {files.max_bytes // 2**20} MiB"

    def _values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        values = {**self._probe_values(), **self._uplink_values(), **self._spool_values()}
        return {f"pingmon_agent_{name}": value for name, value in values.items()}

    def _probe_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        current, counts = self._schedule.current, self._rounds.counts
        total = len(current.targets) if current else 0
        unresolved = min(self._rounds.unresolved, total)
        refused = min(self._rounds.refused, total - unresolved)
        values: dict[str, float | dict[tuple[str, ...], float]] = {
            "build_info": build_labels(version()),
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
        if self._engine is not None:
            tally = self._engine.tally
            outcomes, errors = self._rounds.outcomes, list(tally.send_errors.items())
            denied = sum(n for e, n in errors if e in (errno.EPERM, errno.EACCES))
            values |= {
                "ping_mode_info": {(self._engine.mode, "kernel"): 1},
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
        uplink, delivered = self._uplink.counts, self._delivery.counts
        values: dict[str, float | dict[tuple[str, ...], float]] = {
            "session_state": {(str(s),): float(s is self._delivery.state) for s in SessionState},
            "server_connected": float(uplink.connected),
            "server_reconnects_total": max(0, uplink.connections - 1),
            "server_connect_failures_total": uplink.failures,
            "reports_total": delivered.reports,
            "reports_refused_total": {(code,): n for code, n in list(delivered.refused.items())},
            "bugs_total": uplink.faults + self._rounds.counts.faults,
        }
        if uplink.certificate_expires:
            values["tls_certificate_not_after_timestamp_seconds"] = {("server",): uplink.certificate_expires}
        return values

    def _spool_values(self) -> dict[str, float | dict[tuple[str, ...], float]]:
        files = self._journal
        counts = files.counts if files is not None else JournalCounts()
        return {
            "spool_results": self._ring.waiting(),
            "spool_limit_results": self._room,
            "spool_dropped_total": self._ring.dropped,
            "spool_degraded": float(files is not None and not files.healthy),
            "spool_size_bytes": files.size if files is not None else 0,
            "spool_limit_bytes": files.max_bytes if files is not None else 0,
            "spool_write_failures_total": counts.failures,
            "spool_damaged_total": {("block",): counts.damaged, ("file",): counts.set_aside},
        }


def _journal(config: Config) -> Journal | None:
    directory = config.agent.directory
    if directory is None:
        return None
    return Journal(directory, config.agent.buffer_mib * 2**20, durable=config.agent.buffer == "disk")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _identity(config: Config) -> Handshake:
    return Handshake(
        passphrase=PLAIN_TAG,  # door.py puts there what belongs there
        hostname=config.agent.hostname,
        ip_address=config.agent.ip_address or _UNKNOWN_ADDRESS,
        version=version(),
    )
