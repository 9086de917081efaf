"""`pingmon status`: the server of this host on one screen, and whether it is ready."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pingmon import config as settings
from pingmon.config import Config
from pingmon.services.bundle import Services
from pingmon.services.views import seconds
from pingmon.store.check import DIRECTORY, SAMPLES
from pingmon.store.last_backup import known
from pingmon_agent.wire.contract import State

from .agents_rows import ago
from .asking import ask
from .common import add_config, services_of
from .pki_show import facts as certificate_facts
from .plain import CommandError, dump, shown

MIB = 1 << 20


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("status", help="whether the server of this host is ready, and its state in brief")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    add_config(parser)
    parser.set_defaults(func=_status)


def _status(args: argparse.Namespace) -> int:
    config = settings.load(args.config)
    answer = ask(config)
    found: dict[str, Any] = {
        "url": config.public_url,
        "ready": answer.why is None,
        "why": answer.why,
        "version": answer.version,
        "installed_version": version("pingmon"),
        "connected_agents": answer.connected,
        "certificate": _certificate(config),
        "last_backup": _last_backup(config),
    }
    with services_of(args) as services:
        found |= _kept(services)
    if args.output == "json":
        dump(found)
    else:
        sys.stdout.writelines(f"{label:<13}{shown(text)}\n" for label, text in _lines(found))
    return 0 if answer.why is None else 1


def _kept(services: Services) -> dict[str, Any]:
    """What the databases know."""
    registry, data_dir = services.registry, services.config.data_dir
    states = Counter(view.state for view in registry.agents())
    sizes = {name: sum(f.stat().st_size for f in data_dir.glob(f"{name}*")) for name in (DIRECTORY, SAMPLES)}
    return {
        "agents": {str(state): states[state] for state in State if states[state] or state is State.APPROVED},
        "targets": len(registry.targets()),
        "series": sum(len(found.target_ids) for found in registry.snapshot.sets.values()),
        "databases": sizes,
    }


def _certificate(config: Config) -> dict[str, Any]:
    try:
        found = certificate_facts(Path(config.tls.certificate), None, None)
    except CommandError as error:
        return {"error": str(error)}
    return {key: found[key] for key in ("names", "not_after", "days_left")}


def _last_backup(config: Config) -> dict[str, Any] | None:
    last = known(config.data_dir)
    if last is None:
        return None
    age_s = max(0.0, time.time() - last.at_ms / 1000)
    return {"at": seconds(last.at_ms), "age_s": age_s, "file": last.file, "bytes": last.bytes}


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    certificate, last = found["certificate"], found["last_backup"]
    days = f"{certificate.get('days_left')} days left, for {', '.join(certificate.get('names', []))}"
    connected = "" if found["connected_agents"] is None else f", {found['connected_agents']} connected"
    agents = ", ".join(f"{count} {state}" for state, count in found["agents"].items())
    return [
        ("server", f"{found['url']}, version {found['version'] or found['installed_version']}"),
        ("ready", "yes" if found["ready"] else f"no: {found['why']}"),
        ("agents", agents + connected),
        ("targets", f"{found['targets']}, {found['series']} paths measured"),
        ("databases", ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in found["databases"].items())),
        ("certificate", certificate.get("error") or days),
        ("last backup", f"{ago(last['age_s'])}, {last['file']}" if last else "none is known"),
    ]
