"""The commands of `pingmon-agent`. Exit codes: 0 done, 1 refused or failed with one sentence on stderr, 2 wrong usage,
3 not approved (`run --exit-when-unapproved`), 78 configuration error.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import http.client
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import config as configuration
from . import doctor, log, tls
from .agent import EXIT_FAILED, EXIT_OK, Agent, version
from .config import ConfigError
from .credential import load_here, open_to_others
from .engine import EchoEngine
from .icmp import NoPermissionError
from .journal import BusyError
from .keep import own_identity
from .plan import Plan, Probed
from .policy import PolicyError, policy_of
from .resolve import Resolver
from .wire.contract import Outcome
from .wire.framing import b64u
from .wire.keyfile import KeyFileError
from .wire.seal import grouped

EXIT_CONFIG = 78
_PING_LOOKUP_S = 10.0
_STATUS_TIMEOUT_S = 5.0
_WORDS = {
    Outcome.TIMEOUT: "timeout",
    Outcome.NOT_PROBED: "not probed",
    Outcome.UNREACHABLE: "unreachable",
    Outcome.NOT_SENT: "not sent (this host refuses to send there)",
    Outcome.UNRESOLVED: "name does not resolve",
    Outcome.TTL_EXCEEDED: "time to live exceeded",
    Outcome.REFUSED_BY_POLICY: "refused by this host's firewall",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.func
    try:
        return command(args)
    except (ConfigError, PolicyError) as err:
        _failed(str(err))
        return EXIT_CONFIG
    except (BusyError, KeyFileError, NoPermissionError, tls.ConnectError) as err:
        return _failed(str(err))
    except KeyboardInterrupt:
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pingmon-agent", description="Pings targets and reports to a pingmon server.")
    parser.add_argument("--version", action="version", version=f"pingmon-agent {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure and report until stopped")
    _add_config(run)
    run.add_argument(
        "--exit-when-unapproved",
        action="store_true",
        help="end with exit code 3 when the server does not approve at once, instead of waiting",
    )
    run.set_defaults(func=_run)
    status = commands.add_parser("status", help="how the running agent on this host is doing")
    _add_config(status)
    status.set_defaults(func=_status)
    identity = commands.add_parser("identity", help="the key that an administrator approves, made if there is none yet")
    _add_config(identity)
    identity.add_argument("--json", action="store_true", help="for programs")
    identity.set_defaults(func=_identity)
    config = commands.add_parser("config", help="work on the configuration")
    check = config.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="say what is wrong, if any"
    )
    _add_config(check)
    check.add_argument("--connect", action="store_true", help="also try the TLS connection to the server")
    check.set_defaults(func=_config_check)
    healer = commands.add_parser("doctor", help="try all that an agent needs on this host, and print the mend")
    _add_config(healer)
    healer.set_defaults(func=_doctor)
    _add_ping(commands.add_parser("ping", help="probe by hand, with the same engine"))
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")


def _add_ping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="address or name")
    parser.add_argument("-c", "--count", type=_positive_int, default=4, help="rounds (default %(default)s)")
    parser.add_argument("-i", "--interval", type=_positive, default=1.0, help="seconds between rounds (default 1)")
    parser.add_argument("-W", "--timeout", type=_positive, default=2.0, help="seconds a reply may take (default 2)")
    parser.set_defaults(func=_ping)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0.01 and 3600")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def _run(args: argparse.Namespace) -> int:
    def load() -> configuration.Config:
        config = configuration.load(args.config)
        if not args.exit_when_unapproved:
            return config
        return dataclasses.replace(config, agent=dataclasses.replace(config.agent, exit_when_unapproved=True))

    config = load()
    log.setup(config.log.level)
    faulthandler.enable(2)  # systemd ends an agent that hangs by SIGABRT: the log says where it hung
    if (warning := open_to_others(config)) is not None:
        logging.getLogger("pingmon_agent").warning(warning)
    return Agent(config, load).run()


def _identity(args: argparse.Namespace) -> int:
    config = configuration.load(args.config, enrolled=False)
    identity, address = own_identity(config), config.agent.ip_address or _way_out(config.server)
    facts = {
        "fingerprint": grouped(identity.fingerprint),
        "key_fpr": identity.fingerprint,
        "public_key": b64u(identity.public),
        "hostname": config.agent.hostname,
        "ip_address": address,
    }
    if args.json:
        print(json.dumps(facts))
        return EXIT_OK
    for key, value in facts.items():
        print(f"{key:<11}  {value or '-'}")
    return EXIT_OK


def _way_out(server: configuration.Server) -> str:
    """The address by which this host reaches its server, found without sending anything; empty if there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _config_check(args: argparse.Namespace) -> int:
    config = load_here(args.config)
    context = tls.client_context(config.server.ca_file, config.server.minimum_tls)
    policy_of(config.probe.policy_file, config.probe.allow_loopback)
    print(f"{args.config} is fine: this is agent {config.agent.hostname}, its server is {config.server.url}")
    if (warning := open_to_others(config)) is not None:
        print(f"warning: {warning}", file=sys.stderr)
    if args.connect:
        tls.connect(config.server.host, config.server.port, context, config.server.ca_file).close()
        print(f"{config.server.url} answers and is trusted by {config.server.ca_file}")
    return EXIT_OK


def _doctor(args: argparse.Namespace) -> int:
    return EXIT_OK if doctor.run(args.config, print) else EXIT_FAILED


def _status(args: argparse.Namespace) -> int:
    address = configuration.listen_address(configuration.load(args.config, enrolled=False).metrics.listen)
    if address is None:
        return _failed('the agent serves no status, as metrics.listen is ""; set it to "127.0.0.1:9765"')
    try:
        facts = _ask(address)
    except (OSError, http.client.HTTPException, ValueError) as err:
        return _failed(f"no agent answers on {address[0]}:{address[1]} ({err}); is it running? see its log")
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = "; ".join(value) if isinstance(value, list) else value
        print(f"{key:<{width}}  {shown if shown not in (None, '') else '-'}")
    return EXIT_OK if facts["ready"] else EXIT_FAILED


def _ask(address: tuple[str, int]) -> dict[str, object]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104 - asking, not listening
    connection = http.client.HTTPConnection(host, address[1], timeout=_STATUS_TIMEOUT_S)
    try:
        connection.request("GET", "/-/ready")
        facts = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if not isinstance(facts, dict) or "ready" not in facts:
        raise ValueError("what answers there is no pingmon agent")
    return facts


def _failed(sentence: str) -> int:
    # A path from a damaged file may hold a line break: one sentence stays one line.
    shown = "".join(c if c.isprintable() else "?" for c in sentence)
    print(f"pingmon-agent: {shown}", file=sys.stderr)
    return EXIT_FAILED


def _ping(args: argparse.Namespace) -> int:
    log.setup("error")
    resolver = Resolver()
    resolver.start()
    resolver.watch(args.targets)
    resolver.settle(_PING_LOOKUP_S)
    addresses = [resolver.address(target) for target in args.targets]
    engine = EchoEngine()
    replies = 0
    try:
        for number in range(args.count):
            if number:
                time.sleep(args.interval)
            probed = engine.run_round(Plan(addresses=addresses, window_s=0.0, timeout_s=args.timeout))
            replies += sum(sample >= 0 for sample in probed.samples)
            for place, (target, address) in enumerate(zip(args.targets, addresses, strict=True)):
                print(f"{target}  {address or '-'}  {_outcome(probed, place)}", flush=True)
    finally:
        engine.close()
        resolver.stop()
    sent = args.count * len(addresses)
    print(f"{sent} probes, {replies} replies ({engine.mode} socket, kernel time stamps)")
    return EXIT_OK if replies else EXIT_FAILED


def _outcome(probed: Probed, place: int) -> str:
    sample = probed.samples[place]
    if sample >= 0:
        return f"{sample / 1000:.3f} ms"
    refusal = probed.refusals.get(place)
    who = f" (says {refusal.sender}: ICMP type {refusal.kind}, code {refusal.code})" if refusal else ""
    return _WORDS[Outcome(sample)] + who
