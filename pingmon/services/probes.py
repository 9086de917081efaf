"""How a target is probed, as people write it, as the database keeps it and as the wire carries it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pingmon_agent.wire.codec import decode_probe, encode_probe
from pingmon_agent.wire.contract import Probe, WireError

from .errors import Invalid

SHORTEST_S = 1  # as probing.interval_s has it
_NAMES = tuple(f.name for f in dataclasses.fields(Probe))


def check_probe(fields: Mapping[str, object]) -> Probe:
    """Out of `{count, interval_s, size, ...}`; raises Invalid for a wrong value and for an unknown name."""
    for name in fields:
        if name not in _NAMES:
            raise Invalid(f"{name!r} is no way to probe; there are {', '.join(_NAMES)}")
    try:
        probe = decode_probe(fields)
    except WireError as error:
        raise Invalid(error.message) from None
    if 0 < probe.interval_s < SHORTEST_S:
        raise Invalid(
            f"interval_s = {probe.interval_s:g} is wrong: it must be 0 (every round) or at least {SHORTEST_S}"
        )
    return probe


def parse_probe(words: Iterable[str]) -> Probe:
    """Out of words such as `count=3` and `df=true`; raises Invalid."""
    fields: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise Invalid(f"{word!r} is no setting; write name=value, such as count=3")
        fields[name.strip()] = _value(name.strip(), text.strip())
    return check_probe(fields)


def _value(name: str, text: str) -> object:
    if name == "df":
        return {"true": True, "false": False}.get(text.lower(), text)
    if name == "source" or name not in _NAMES:
        return text
    try:
        return float(text) if name == "interval_s" else int(text)
    except ValueError:
        return text  # decode_probe says what is wrong with it


def spell_probe(probe: Probe) -> list[str]:
    """The words that `parse_probe` reads."""
    return [f"{name}={str(value).lower() if value is True else value}" for name, value in encode_probe(probe).items()]


def probe_text(probe: Probe) -> str:
    """As the database keeps it."""
    return json.dumps(encode_probe(probe), separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def probe_of(text: str) -> Probe:
    """Out of the database's text; nearly all targets share one."""
    return decode_probe(json.loads(text))
