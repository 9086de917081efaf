"""`pingmon demo`, which `make run` starts: a TLS server and one real agent on this host, loopback targets only.

Everything is the real thing, as processes of their own; this command only prepares, watches and stops them. It works
on the database with the same services as every other command. Must not know: how either program works inside.
"""

from __future__ import annotations

import argparse
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from pingmon.cli.children import Child, wait_until
from pingmon.cli.common import services_of
from pingmon.cli.demo_home import HOSTNAME, Home, check_host, has_ipv6
from pingmon.cli.plain import CommandError
from pingmon.services.bundle import Services
from pingmon_agent.wire.contract import State
from pingmon_agent.wire.notify import left_out_of

ACTOR = "pingmon demo"
TARGETS = [("loopback-1", "127.0.0.1"), ("loopback-2", "127.0.0.2"), ("loopback-3", "127.0.0.3")]
TARGET_V6 = ("loopback-v6", "::1")
START_S = 60.0  # a small board on its first start, with nothing in the file cache
DAY_S = 86_400


class _Stopped(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C
    """The user has had enough."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the command line."""
    parser = subparsers.add_parser("demo", help="a server and one agent on this host, loopback targets only")
    parser.add_argument("--dir", type=Path, default=Path(".run"), help="where everything is kept (default: .run)")
    parser.add_argument("--port", type=int, default=8443, help="where the server listens on 127.0.0.1 (default: 8443)")
    parser.set_defaults(func=_demo)


def _demo(args: argparse.Namespace) -> int:
    began = time.monotonic()
    home = Home(args.dir.absolute(), args.port)
    check_host(args.port)
    lock = home.prepare()
    args.config = home.server_config
    try:
        with services_of(args, create=True) as services:
            return Demo(home, services, began).run()
    finally:
        os.close(lock)


class Demo:
    """The life of the demo: start, approve, show, wait, stop."""

    def __init__(self, home: Home, services: Services, began: float) -> None:
        self.home, self.services, self.began = home, services, began
        self.children: list[Child] = []
        self.stopping = False

    def run(self) -> int:
        """Until Ctrl-C (0) or until one of the programs dies (CommandError)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._show()
            self._wait_for("a program to end", lambda: False, float("inf"))
        except _Stopped:
            _say("stopping")
        finally:
            codes = [child.stop() for child in reversed(self.children)]
        return 1 if -signal.SIGKILL in codes else 0

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.stopping = True

    def _start(self) -> None:
        self._set_targets()
        self._ensure_passphrase()
        _say("starting the server")
        self._spawn("server", "pingmon", "serve", self.home.server_config)
        self._wait_for("the server to be ready", self._server_is_ready)
        _say("starting the agent")
        since_ms = self.services.clock.wall_ms()
        self._spawn("agent", "pingmon_agent", "run", self.home.agent_config)
        self._wait_for("the agent to register", self._agent_is_approved)
        self._wait_for("the first round", lambda: any(True for _ in self.services.rounds.since(since_ms)))

    def _set_targets(self) -> None:
        registry = self.services.registry
        if not registry.targets():
            registry.put_targets([*TARGETS, *([TARGET_V6] if has_ipv6() else [])], ACTOR)

    def _ensure_passphrase(self) -> None:
        """An agent that was let in once needs none: its key is in its state directory."""
        known = any(view.hostname == HOSTNAME and view.key_fpr for view in self.services.registry.agents())
        if known and self.home.state.exists():
            return
        _, clear = self.services.enrolment.create_passphrase("demo", legacy=False, max_uses=1, ttl_s=DAY_S, actor=ACTOR)
        self.home.save_passphrase(clear)

    def _spawn(self, name: str, module: str, verb: str, configuration: Path) -> None:
        argv = [sys.executable, "-m", module, verb, "--config", str(configuration)]
        environment = left_out_of(os.environ)  # neither child speaks for the service that the demo may run in
        self.children.append(Child(name, argv, self.home.directory / f"{name}.log", environment))

    def _server_is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=self.home.anchor)
        connection = HTTPSConnection("127.0.0.1", self.home.port, timeout=5, context=context)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (ConnectionError, TimeoutError, HTTPException):
            return False
        finally:
            connection.close()

    def _agent_is_approved(self) -> bool:
        registry = self.services.registry
        registry.refresh()
        known = [view for view in registry.agents() if view.hostname == HOSTNAME]
        waiting = next((view for view in known if view.state is State.PENDING), None)
        if waiting is not None:
            before = registry.measuring(HOSTNAME)
            if before is None:
                registry.approve(waiting.id, ACTOR)
            else:  # of an earlier demo, whose agent had another key or none
                registry.rekey(before.id, waiting.id, ACTOR)
            return True
        for view in known:
            if view.state is not State.APPROVED:
                raise CommandError(
                    f"the demo's agent is {view.state}: run `pingmon agents release {view.id} --config "
                    f"{self.home.server_config}`, or start afresh with another --dir"
                )
        return any(view.key_fpr for view in known)

    def _show(self) -> None:
        accounts, now_ms = self.services.accounts, self.services.clock.wall_ms()
        own = Path(sys.executable).with_name("pingmon")
        _say(f"first coloured cell {time.monotonic() - self.began:.1f} s after the start")
        print(f"\n  grid            {self.home.url}/    (the certificate is private: trust {_short(self.home.anchor)})")
        if accounts.has_admin():
            print("  sign in         with the e-mail and password you chose")
        else:
            link = f"{self.home.url}/welcome/{accounts.create_link(now_ms, ACTOR)}"
            print(f"  administrator   {link}    (one use, one hour, this machine only)")
        print(f"  command line    {_short(own)} agents list --config {_short(self.home.server_config)}")
        print(f"  logs            {_short(self.home.directory)}/server.log, agent.log")
        print("  stop            Ctrl-C\n", flush=True)

    def _wait_for(self, what: str, ready: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Raises _Stopped at Ctrl-C, CommandError where a program died or time ran out."""

        def ready_or_stopped() -> bool:
            return self.stopping or ready()

        happened = wait_until(ready_or_stopped, self.children, timeout_s)
        if self.stopping:
            raise _Stopped
        for child in self.children:
            if not child.running:
                raise CommandError(
                    f"the {child.name} ended with code {child.process.returncode}; put right what its last lines say "
                    f"(all of them: {child.log}):\n{child.last_lines()}"
                )
        if not happened:
            raise CommandError(f"waited {timeout_s:g} s for {what} in vain: read the logs in {self.home.directory}")


def _short(path: Path) -> Path:
    """Relative where it lies below the current directory, for lines that people copy."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(text: str) -> None:
    print(f"== {text}", flush=True)
