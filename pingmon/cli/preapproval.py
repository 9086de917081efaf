"""`pingmon agents preapprove`: keys that are approved before their agents come, one by its flags or a fleet as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pingmon.services.errors import Invalid
from pingmon.services.fleet import Order, Outcome
from pingmon_agent.wire.contract import WireError
from pingmon_agent.wire.framing import unb64u
from pingmon_agent.wire.seal import fingerprint, grouped

from .common import actor, add_config, services_of
from .plain import CommandError, dump, shown

OBSERVED = "whether the address the server sees must be allowed too, beside the one the agent says it has"
ONE = ("hostname", "ip", "public_key")
WORDS = {"check": False, "ignore": True}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to `pingmon agents`."""
    parser = verbs.add_parser("preapprove", help="approve keys before their first contact; prints the server's pin")
    parser.add_argument("--hostname")
    parser.add_argument("--ip", help="the address the agent has")
    parser.add_argument("--public-key", help="as `pingmon-agent identity` prints it")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NETWORK", help="may also come from there; repeat"
    )
    parser.add_argument("--observed", choices=tuple(WORDS), default="check", help=OBSERVED)
    parser.add_argument("--replace", action="store_true", help="take the place of the key its hostname has now")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE",
        help="many at once: a JSON list of what `pingmon-agent identity --json` prints, each with allowed, observed "
        "and replace if need be; - is standard input. Prints JSON",
    )  # fmt: skip
    add_config(parser)
    parser.set_defaults(func=_preapprove)


def _preapprove(args: argparse.Namespace) -> int:
    given = [name for name in ONE if getattr(args, name) is not None]
    if args.source is not None:
        if given or args.allow or args.replace:
            raise CommandError("--from takes all of each agent from the list: leave out the other flags", code=2)
        return _fleet(args)
    if len(given) < len(ONE):
        raise CommandError("give --hostname, --ip and --public-key, or a list with --from", code=2)
    return _one(args)


def _one(args: argparse.Namespace) -> int:
    with services_of(args) as services:
        view = services.registry.preapprove(
            args.hostname,
            args.ip,
            args.public_key,
            actor(),
            allowed=args.allow,
            observed_ignored=WORDS[args.observed],
            replace=args.replace,
        )
        pin = services.enrolment.pin
    if args.output == "json":
        sys.stdout.write(json.dumps(view.as_json() | {"server_identity": pin}) + "\n")
        return 0
    sys.stdout.write(f"{shown(view.hostname)} {view.id}: {view.state}\n")
    sys.stdout.write(f'put into its agent.toml, section [server]: identity = "{pin}"\n')
    return 0


def _fleet(args: argparse.Namespace) -> int:
    items = _read(args.source)
    outcomes: list[Outcome] = []
    orders: dict[int, Order] = {}
    for number, item in enumerate(items):
        outcomes.append(Outcome(str(item.get("hostname", "")) if isinstance(item, dict) else ""))
        try:
            orders[number] = order_of(item)
        except Invalid as error:
            outcomes[number].error = error.message
    with services_of(args) as services:
        done = services.registry.preapprove_all(list(orders.values()), actor())
        for number, outcome in zip(orders, done, strict=True):
            outcomes[number] = outcome
        dump({"server_identity": services.enrolment.pin, "agents": [_row(outcome) for outcome in outcomes]})
    refused = sum(outcome.error is not None for outcome in outcomes)
    if refused:
        raise CommandError(f'{refused} of {len(outcomes)} agents were refused: each says why under "error"')
    return 0


def _read(source: Path) -> list[object]:
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
        items = json.loads(text)
    except OSError as error:
        raise CommandError(f"{source} cannot be read ({error.strerror}); name a file with a JSON list") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise CommandError(f"{source} is no JSON list; gather what `pingmon-agent identity --json` prints on each host")
    return items


def order_of(item: object) -> Order:
    """One element of the list; raises Invalid. Keys that are not known here are another version's, and left alone."""
    if not isinstance(item, dict):
        raise Invalid("this is no JSON object; each agent is {hostname, ip_address, public_key}")
    words = {key: item.get(key) for key in ("hostname", "ip_address", "public_key")}
    for key, word in words.items():
        if not isinstance(word, str) or not word:
            raise Invalid(f"{key} is missing or no text; `pingmon-agent identity --json` prints what belongs here")
    _check_fingerprints(item)
    return Order(
        str(words["hostname"]),
        str(words["ip_address"]),
        str(words["public_key"]),
        allowed=_allowed(item.get("allowed")),
        observed_ignored=_observed(item.get("observed")),
        replace=_flag(item.get("replace", False)),
    )


def _check_fingerprints(item: dict[str, Any]) -> None:
    """The key and what people compare come from one command: where they differ, one of them was mixed up."""
    try:
        whole = fingerprint(unb64u(item["public_key"], 32))
    except WireError as error:
        raise Invalid(f"{error.message}; `pingmon-agent identity --json` prints what belongs here") from None
    for key, right in (("key_fpr", whole), ("fingerprint", grouped(whole))):
        if item.get(key, right) != right:
            raise Invalid(f"{key} is not that of public_key: take both from the same host, and anew")


def _allowed(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Invalid('allowed is no list of addresses and networks; write ["192.0.2.0/24"]')
    return tuple(value)


def _observed(value: object) -> bool | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in WORDS:
        raise Invalid(f"observed is {value!r}; it is check or ignore")
    return WORDS[value]


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"replace is {value!r}; it is true or false")
    return value


def _row(outcome: Outcome) -> dict[str, Any]:
    view = outcome.view
    facts: dict[str, Any] = {
        "hostname": outcome.hostname,
        "id": view.id if view else None,
        "state": str(view.state) if view else None,
        "changed": outcome.changed,
    }
    return facts | ({"error": outcome.error} if outcome.error else {})
