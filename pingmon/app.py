"""The one wiring place: settings and services in, a Flask application and a running server out.

`Application.run` is the life of the process on one page: open, start, wait, stop.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from flask_socketio import SocketIO

from pingmon_agent.wire import notify
from pingmon_agent.wire.contract import MAX_MESSAGE_BYTES, NAMESPACE

from . import concurrency, tls, vitals
from .adapters import metrics, web
from .adapters.agent_socket import AgentSocket
from .adapters.bouncer import Bouncer
from .adapters.entrance import Entrance
from .adapters.grid_socket import GridSocket
from .adapters.jobs import Jobs
from .adapters.lines import Lines
from .adapters.packet import CheckedPacket
from .config import Config
from .gate import Gate
from .reload import Reload
from .services.bundle import Services, open_services
from .services.clock import Clock
from .services.limits import Allowance, Failures
from .services.passphrases import secret_file
from .store.check import DIRECTORY, SAMPLES, refuse_damage
from .store.directory import DirectoryError
from .store.lock import held
from .watch import Watch

log = logging.getLogger("pingmon")
# design.md: agents are dropped after 30 s of silence; a stall of the server of 15 s drops nobody.
PING_INTERVAL_S, PING_TIMEOUT_S = 10, 20
REFRESH_S = 0.5  # with the farewell of a line, a decision on the command line ends a connection within a second
STOP_PATIENCE_S = 5.0

Environ = dict[str, Any]


def may_come_from(config: Config) -> Callable[[str, Environ], bool]:
    """Whether a page of this origin may open a socket: one of ours, under a name to which the pages answer too."""
    public = urlsplit(config.public_url).hostname or ""

    def allowed(origin: str, environ: Environ) -> bool:
        if origin == config.public_url:
            return True
        try:
            url = urlsplit(origin)
            name = url.hostname or ""
        except ValueError:
            return False
        same = url.scheme == "https" and url.netloc.lower() == str(environ.get("HTTP_HOST", "")).lower()
        return same and web.is_our_name(name, public)

    return allowed


class Application:
    """Flask, sockets and services of one process."""

    def __init__(self, config: Config, services: Services, reload: Reload | None = None) -> None:
        self.config, self.services = config, services
        self.reload = reload or Reload(config, lambda: config)
        self.flask = Flask("pingmon", static_folder=None)
        self.flask.extensions["pingmon"] = services
        self.sockets = SocketIO(
            self.flask,
            async_mode=concurrency.mode(),
            serializer=CheckedPacket,
            async_handlers=False,
            namespaces=[NAMESPACE],  # python-socketio would take anybody into "/" too
            transports=["websocket"],
            allow_upgrades=False,
            http_compression=False,
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            cors_allowed_origins=may_come_from(config),
        )
        allowance = Allowance(config.nat_networks, config.unlimited_networks)
        self.gate = Gate(allowance.connections)
        self.lines = Lines(self.sockets.server, allowance, services.clock.monotonic)
        now = services.clock.monotonic
        bouncer = Bouncer(self.lines, Failures(allowance), self.gate.block, services.ingest.reject, now)
        self.agents = AgentSocket(self.sockets.server, services, self.lines, bouncer)
        self.grid = GridSocket(self.sockets, services, web.viewer_id, self.lines)
        self.jobs = Jobs(services)
        self.bad_connections: Callable[[], int] = lambda: 0
        self.certificate: tls.Served | None = None  # set by `serve`
        self.flask.secret_key = secret_file(config.data_dir / "session-key", "everybody has to sign in again")
        web.install(self.flask, services, self.grid.kick, self._warning)
        outside = metrics.Outside(
            agents=lambda: self.agents.connections,
            browsers=lambda: self.grid.connections,
            bad_connections=lambda: self.bad_connections(),  # noqa: PLW0108 - set later, by `serve`
            refused_connections=lambda: self.gate.refused,
            cuts=lambda: self.lines.cuts,
            job_failures=lambda: self.jobs.failures,
            handler_faults=lambda: self.agents.faults,
            certificate_not_after=lambda: self.certificate.chain.not_after if self.certificate else 0.0,
            certificate_failures=lambda: self.certificate.failures if self.certificate else 0,
            reload_successful=lambda: self.reload.successful,
            reload_succeeded_at=lambda: self.reload.succeeded_at,
        )
        self.flask.register_blueprint(metrics.blueprint(services, outside, web.may_read_metrics))
        entrance = Entrance(self.flask.wsgi_app, self.lines.may_open, web.MAX_BODY_BYTES)
        self.flask.wsgi_app = entrance  # type: ignore[method-assign]

    def _warning(self) -> str | None:
        return self.certificate.warning() if self.certificate is not None else None

    def start_background(self) -> threading.Thread:
        """Start the committer (returned) and everything that goes on by itself."""
        committer = threading.Thread(target=self.services.ingest.run, name="committer", daemon=True)
        committer.start()
        self.sockets.start_background_task(self.grid.run)
        self.sockets.start_background_task(self.lines.run)
        self.sockets.start_background_task(self._keep_up)
        self.jobs.start()
        return committer

    def _keep_up(self) -> None:
        """Notice what the command line changed in the database, a new certificate, and a wish to reload."""
        away = False
        while True:
            self.sockets.sleep(REFRESH_S)
            self.reload.look()
            if self.certificate is not None:
                self.certificate.look()
            try:
                self.services.registry.catch_up()
                away = False
            except DirectoryError as error:
                if not away:
                    log.error("%s; the last known agents and targets stay in force", error)  # noqa: TRY400 - no bug
                away = True
            except Exception:
                log.exception("agents and targets could not be read again; the last known ones stay in force")

    def stop(self, committer: threading.Thread) -> None:
        """Commit what waits, then let go of the databases."""
        self.jobs.stop()
        self.services.ingest.beat()  # up to this moment, says the ledger
        self.services.ingest.stop()
        committer.join(STOP_PATIENCE_S)
        self.services.registry.flush_seen()
        self.services.refusals.flush()
        self.services.close()


def create_app(config: Config, clock: Clock | None = None, reload: Reload | None = None) -> Application:
    """Open the databases under `data_dir` and wire everything; raises what `open_services` raises."""
    return Application(config, open_services(config, clock), reload)


def serve(config: Config, load: Callable[[], Config]) -> None:
    """Run until SIGTERM or SIGINT; at SIGHUP `load` the configuration again.

    Raises TlsError, LockError, DamageError, what `open_services` does, and Refused where targets are above the limits.
    """
    notifier = notify.taken_from(os.environ)
    certificate, key = Path(config.tls.certificate), Path(config.tls.key)
    served = tls.Served(certificate, key, config.tls.minimum_version)
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(config.data_dir):
        refuse_damage(config.data_dir)
        _serve(config, served, notifier, Reload(config, load, notifier, served.ask))


def _serve(config: Config, served: tls.Served, notifier: notify.Notifier, reload: Reload) -> None:
    application = create_app(config, reload=reload)
    application.services.registry.check_load()
    application.certificate = served
    listen, port = config.server.listen, config.server.port
    server = concurrency.Server(application.flask, listen, port, served.context, application.gate)
    application.bad_connections = lambda: server.bad_connections
    rounds = application.services.warm_up()
    # What is here by now stays: a full collection that looked through it again would hold every thread for 0.1 s.
    gc.collect()
    gc.freeze()
    committer = application.start_background()
    watch = _watch(application, server.port, notifier)
    watch.start(application.sockets.start_background_task)
    _stop_on_signal(server)
    signal.signal(signal.SIGHUP, lambda _number, _frame: reload.ask())
    log.info("serving url=%s port=%d mode=%s rounds=%d", config.public_url, server.port, concurrency.mode(), rounds)
    server.run()
    notifier.say(notify.STOPPING)
    watch.stop()
    log.info("stopping: committing what waits")
    application.stop(committer)
    log.info("stopped")


def _watch(application: Application, port: int, notifier: notify.Notifier) -> Watch:
    config, ingest = application.config, application.services.ingest
    checks = {
        "the front door": vitals.Front(config.server.listen, port, application.gate).check,
        "the databases": vitals.databases(config.data_dir / name for name in (DIRECTORY, SAMPLES)),
        "the committer": vitals.committer(ingest),
    }
    return Watch(notifier, checks, lambda: f"{application.agents.connections} agents connected, {config.public_url}")


def _stop_on_signal(server: concurrency.Server) -> None:
    def stop(_number: int, _frame: object) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
