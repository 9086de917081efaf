"""The agent's life on one page: load, open, start, wait, stop. The one place where the parts are wired together.

update_targets -> Schedule -> Engine -> Ring -> Delivery -> Uplink -> server
"""

from __future__ import annotations

import errno
import functools
import importlib.metadata
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from .answers import Answer, Patience
from .config import Config, listen_address
from .delivery import Delivery
from .door import Door
from .engine import EchoEngine
from .icmp import NoPermissionError
from .journal import Journal
from .keep import keep_of
from .links import broadcasts
from .log import say
from .metrics import Metrics, MetricsServer
from .pairs import Pairs
from .policy import Judge, policy_of
from .refusals import Refusals
from .reload import Reload
from .resolve import Resolver
from .ring import Ring
from .rounds import Rounds
from .schedule import Schedule, Tick
from .service import Service
from .session import SessionState
from .tls import ConnectError, client_context
from .uplink import Uplink
from .view import View
from .wire import notify
from .wire.contract import PLAIN_TAG, Handshake
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

    def __init__(self, config: Config, load: Callable[[], Config] | None = None) -> None:
        """`load` reads the configuration again. Raises BusyError if another agent keeps its rounds where this one is to
        keep them, KeyFileError.
        """
        notifier = notify.taken_from(os.environ)
        self._door = Door(keep_of(config), _wall_ms)
        self._config, self._exit_code = config, EXIT_OK
        self._stop = threading.Event()
        self._journal = _journal(config)
        room = config.agent.buffer_mib * 2**20 // SAMPLE_BYTES
        self._ring = Ring(boot_time, max_samples=room, journal=self._journal)
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
        self._reload = Reload(config, self._judge.policy, load or (lambda: config), notifier)
        self._view = View(
            version=version(),
            config=config,
            door=self._door,
            schedule=self._schedule,
            rounds=self._rounds,
            ring=self._ring,
            journal=self._journal,
            delivery=self._delivery,
            uplink=self._uplink,
            room=room,
            reload=self._reload,
        )
        self._metrics = Metrics(self._view.facts, self._pairs)
        self._service = self._as_service(notifier)

    def run(self) -> int:
        """Load, open, start, wait, stop. SIGTERM and SIGINT end it cleanly within two seconds, SIGHUP reloads."""
        try:
            client_context(self._config.server.ca_file, self._config.server.minimum_tls)
            engine = self._view.engine = EchoEngine(self._stop)
            pages = self._open_pages()
        except (ConnectError, NoPermissionError, OSError) as err:
            _log.error(say("cannot start", reason=str(err)))
            return EXIT_FAILED
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._service.ask(self._reload.run))
        key = grouped(self._door.keep.identity.fingerprint)
        facts = {"hostname": self._config.agent.hostname, "key": key, "icmp": engine.mode, "families": engine.families}
        _log.info(say("agent started", version=version(), **facts))
        self._resolver.start()
        self._uplink.start()
        self._service.start()
        self._rounds.run(engine, self._stop)
        self._service.stop()
        self._uplink.stop(FLUSH_S)
        self._resolver.stop()
        if pages is not None:
            pages.stop()
        engine.close()
        self._ring.close()
        _log.info(say("agent stopped", rounds=self._rounds.counts.done, undelivered=self._ring.waiting()))
        return self._exit_code

    def _as_service(self, notifier: notify.Notifier) -> Service:
        flusher = self._journal.flusher if self._journal is not None else None
        stopped = {
            "the round loop": lambda: self._rounds.pulse.stopped,
            "the uplink": lambda: self._uplink.pulse.stopped,
            "the flusher": lambda: flusher is not None and flusher.died,
        }
        return Service(notifier, begun=lambda: self._rounds.pulse.begun, stopped=stopped, status=self._view.line)

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
