"""`pingmon targets`: what the agents ping."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path

from pingmon.services.errors import Refused
from pingmon.services.probes import parse_probe, spell_probe
from pingmon_agent.wire.contract import Probe

from .common import actor, add_config, services_of
from .plain import CommandError, add_output, print_rows, shown

COLUMNS = (("id", "ID"), ("name", "NAME"), ("address", "ADDRESS"), ("settings", "PROBING"), ("agent_id", "AGENT"))


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the noun to the command line."""
    noun = subparsers.add_parser("targets", help="list, add, remove, import, export targets")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    lister = verbs.add_parser("list", help="all targets")
    add_output(lister)
    lister.set_defaults(func=_list)
    adder = verbs.add_parser("add", help="one more target; every approved agent gets it at once")
    adder.add_argument("name")
    adder.add_argument("address", nargs="?", help="address or host name (default: the name)")
    adder.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="how to probe it, such as count=3 dscp=46")
    adder.set_defaults(func=_add)
    remover = verbs.add_parser("remove", help="ping these no more")
    remover.add_argument("target", nargs="+", help="id, name or address")
    remover.set_defaults(func=_remove)
    importer = verbs.add_parser(
        "import", help="make the list equal to a file (lines `name,address[,setting=value…]`; - = standard input)"
    )
    importer.add_argument("file")
    importer.set_defaults(func=_import)
    exporter = verbs.add_parser("export", help="print the list in the form `import` reads")
    exporter.set_defaults(func=_export)
    for parser in (lister, adder, remover, importer, exporter):
        add_config(parser)


def _list(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        rows = [
            view.as_json() | {"settings": " ".join(spell_probe(view.probe))} for view in services.registry.targets()
        ]
    print_rows(rows, COLUMNS, args.output)
    return 0


def _add(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        probe = parse_probe(args.settings)
        view = services.registry.add_target(args.name, args.address or args.name, actor(), probe)
    sys.stdout.write(json.dumps(view.as_json()) + "\n")
    return 0


def _remove(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        for ref in args.target:
            view = services.registry.remove_target(ref, actor())
            sys.stdout.write(f"removed {shown(view.name)} {shown(view.address)}\n")
    return 0


def _import(args: argparse.Namespace) -> int:
    wanted = _parse(_read(args.file))
    with services_of(args) as services:
        views = services.registry.put_targets(wanted, actor())
    sys.stdout.write(f"{len(views)} targets are in force\n")
    return 0


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CommandError(f"{name} cannot be read ({why}); name a file with lines `name,address`") from error


def _parse(text: str) -> list[tuple[str, str, Probe]]:
    wanted = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        try:
            wanted.append((cells[0], cells[1] if len(cells) > 1 else cells[0], parse_probe(cells[2:])))
        except Refused as refusal:
            raise CommandError(f"line {number}: {refusal.message}") from None
    return wanted


def _export(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        own = [view for view in services.registry.targets() if view.agent_id is None]
        rows = [(view.name, view.address, *spell_probe(view.probe)) for view in own]
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    return 0
