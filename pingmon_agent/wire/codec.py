"""Message <-> plain dict, strictly: what does not fit is a WireError with one sentence, never a half-read message.

Columns are checked by C loops only (types, range); nothing here touches one sample at a time.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from .contract import (
    LIST_COLUMN,
    LOWEST_OUTCOME,
    MAX_ROUNDS_PER_REPORT,
    MAX_RTT_US,
    MAX_SAMPLES_PER_REPORT,
    MAX_TARGETS,
    PLAIN_TAG,
    ErrorCode,
    Handshake,
    Probe,
    Report,
    Round,
    Target,
    TargetSet,
    WireError,
    check_epoch,
)
from .hosts import MAX_REFUSED_LATER, decode_refused, encode_refused

T = TypeVar("T")
Json = dict[str, Any]
_ROUND_BYTES = 96  # what a round costs beside its samples: seq, t, rev, disturbed
_SEQ_LIMIT = 2**53  # the largest whole number every JSON reader keeps exact


def _bad(message: str, code: ErrorCode = ErrorCode.MALFORMED) -> WireError:
    return WireError(code, message)


def _field(data: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = data.get(name)
    # bool is an int to Python, but never to us
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _bad(f"{name} must be a {kind.__name__}")
    return value


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise _bad(f"{what} must be an object")
    return data


def _count(data: Mapping[str, Any], name: str, lowest: int = 0) -> int:
    value = _field(data, name, int)
    if not lowest <= value < _SEQ_LIMIT:
        raise _bad(f"{name} must be between {lowest} and 2^53")
    return value


def _optional_count(data: Mapping[str, Any], name: str) -> int | None:
    return _count(data, name) if name in data else None


# -- handshake --


def encode_handshake(message: Handshake) -> Json:
    """The four original string fields; a current agent's extra facts ride inside `passphrase` behind a tag."""
    passphrase = message.passphrase
    if message.epoch is not None:
        facts = {"epoch": message.epoch, "next": message.next_seq} | _sent(message.sent_ms)
        ext = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        passphrase = f"{PLAIN_TAG}{base64.urlsafe_b64encode(ext.encode()).decode().rstrip('=')}.{passphrase}"
    return {
        "passphrase": passphrase,
        "hostname": message.hostname,
        "ip_address": message.ip_address,
        "version": message.version,
    }


def decode_handshake(data: object) -> Handshake:
    """A Handshake from a client's payload; raises WireError. Unknown fields are ignored, as the original did."""
    fields = _mapping(data, "handshake")
    text: Json = {name: _field(fields, name, str) for name in ("passphrase", "hostname", "ip_address", "version")}
    if not text["passphrase"].startswith(PLAIN_TAG):
        return Handshake(**text)
    ext, _, text["passphrase"] = text["passphrase"].removeprefix(PLAIN_TAG).partition(".")
    try:
        facts = _mapping(json.loads(base64.urlsafe_b64decode(ext + "=" * (-len(ext) % 4))), "ext")
    except (ValueError, RecursionError):
        raise _bad("the agent's part of the passphrase field is not readable; upgrade the agent") from None
    epoch, next_seq = _field(facts, "epoch", str), _count(facts, "next", 1)
    return Handshake(**text, epoch=epoch, next_seq=next_seq, sent_ms=_optional_count(facts, "sent"))


# -- targets --


def encode_targets(message: TargetSet) -> Json:
    """The payload of `update_targets` for a current agent, without its signature."""
    return {
        "agent_id": message.agent_id,
        "revision": message.revision,
        "issued_at": message.issued_at,
        "interval_s": message.interval_s,
        "targets": [
            {"id": t.id, "name": t.name, "address": t.address} | encode_probe(t.probe) for t in message.targets
        ],
    }


_PROBE_KINDS: dict[str, type] = {f.name: type(f.default) for f in dataclasses.fields(Probe)}
_STANDARD = Probe()


def encode_probe(probe: Probe) -> Json:
    """What differs from the standard probe."""
    if probe == _STANDARD:
        return {}
    pairs = ((name, getattr(probe, name)) for name in _PROBE_KINDS)
    return {name: value for name, value in pairs if value != getattr(_STANDARD, name)}


def decode_probe(fields: Mapping[str, Any]) -> Probe:
    """A Probe from those of its fields that are given; raises WireError. Fields of other names are not looked at."""
    given: Json = {}
    for name, kind in _PROBE_KINDS.items():
        if name not in fields:
            continue
        value = fields[name]
        # a fraction is fine for seconds, and nothing but true and false is a bool
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, _WIDER.get(name, kind)):
            raise _bad(f"{name} must be {_KIND_WORDS[kind]}", ErrorCode.TARGET)
        given[name] = value
    return Probe(**given) if given else _STANDARD


_WIDER: dict[str, Any] = {"interval_s": int | float}
_KIND_WORDS: dict[type, str] = {int: "a number", bool: "true or false", str: "text"}


def decode_targets(data: object) -> TargetSet:
    """A TargetSet from the server's payload; raises WireError and leaves the caller's set as it was."""
    fields = _mapping(data, "update_targets")
    rows = _field(fields, "targets", list)
    if len(rows) > MAX_TARGETS:
        raise _bad(f"more than {MAX_TARGETS} targets for one agent", ErrorCode.BATCH)
    interval = fields.get("interval_s")
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0.1 <= interval <= 3600:
        raise _bad("interval_s must be between 0.1 and 3600")
    message = TargetSet(
        agent_id=_field(fields, "agent_id", str),
        revision=_count(fields, "revision"),
        issued_at=_count(fields, "issued_at"),
        interval_s=float(interval),
        targets=tuple(_target(row) for row in rows),
    )
    if message.columns > MAX_TARGETS:
        raise _bad(f"more than {MAX_TARGETS} probes in one round", ErrorCode.BATCH)
    return message


def _target(row: object) -> Target:
    fields = _mapping(row, "target")
    return Target(
        id=_count(fields, "id"),
        name=_field(fields, "name", str),
        address=_field(fields, "address", str),
        probe=decode_probe(fields),
    )


# -- reports --


def encode_report(report: Report) -> Json:
    """Columns, one per round: `{"v":1,"epoch":…,"rounds":[{"seq","t","rev","rtt":[us or code]},…]}`.

    A column of more than LIST_COLUMN samples is base64 of little-endian int32 under `rtt32` instead.
    """
    message: Json = {"v": 1, "epoch": report.epoch, "rounds": [_encode_round(r) for r in report.rounds]}
    if report.gap is not None:
        message["gap"] = list(report.gap)
    return message | _sent(report.sent_ms) | encode_refused(report.refused)


def _sent(sent_ms: int | None) -> Json:
    return {} if sent_ms is None else {"sent": sent_ms}


def _encode_round(r: Round) -> Json:
    row: Json = {"seq": r.seq, "t": r.started_ms, "rev": r.revision}
    if len(r.samples) > LIST_COLUMN:
        row["rtt32"] = base64.b64encode(_little(r.samples).tobytes()).decode()
    else:
        row["rtt"] = r.samples.tolist()
    if r.disturbed:
        row["disturbed"] = True
    return row


def round_size(samples: array[int]) -> int:
    """Bytes that a round of these samples takes in a report, at most."""
    if len(samples) > LIST_COLUMN:
        return _ROUND_BYTES + (len(samples) * 4 + 2) // 3 * 4
    longest = max(len(str(max(samples))), len(str(min(samples)))) if samples else 0
    return _ROUND_BYTES + 2 + len(samples) * (longest + 1)


def _little(samples: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return samples
    copy = array("i", samples)
    copy.byteswap()
    return copy


def decode_report(data: object) -> Report:
    """A Report from an agent's payload; raises WireError. Costs about 60 ns per sample."""
    fields = _mapping(data, "monitoring_data")
    if fields.get("v") != 1:
        raise _bad("v must be 1; upgrade the server before the agents")
    epoch = check_epoch(_field(fields, "epoch", str))
    rows = _field(fields, "rounds", list)
    if not 1 <= len(rows) <= MAX_ROUNDS_PER_REPORT:
        raise _bad(f"a report holds 1 to {MAX_ROUNDS_PER_REPORT} rounds", ErrorCode.BATCH)
    report = Report(
        epoch=epoch,
        rounds=tuple(_round(epoch, row) for row in rows),
        gap=_gap(fields.get("gap")),
        sent_ms=_optional_count(fields, "sent"),
        refused=decode_refused(fields["refused"], MAX_REFUSED_LATER) if "refused" in fields else None,
    )
    if report.samples > MAX_SAMPLES_PER_REPORT:
        raise _bad(f"a report holds {MAX_SAMPLES_PER_REPORT} samples at most; send fewer rounds", ErrorCode.BATCH)
    seqs = [r.seq for r in report.rounds]
    if any(b <= a for a, b in pairwise(seqs)):
        raise _bad("seq must rise within a report")
    return report


def _round(epoch: str, row: object) -> Round:
    fields = _mapping(row, "round")
    return Round(
        epoch=epoch,
        seq=_count(fields, "seq", 1),
        started_ms=_count(fields, "t"),
        revision=_count(fields, "rev"),
        samples=decode_packed(fields["rtt32"]) if "rtt32" in fields else decode_column(fields.get("rtt")),
        disturbed=fields.get("disturbed") is True,
    )


def decode_column(values: object) -> array[int]:
    """int32 column of RTTs (us) and outcome codes; refuses every other type and number, bool included."""
    if not isinstance(values, list):
        raise _bad("rtt must be a list of whole microseconds or outcome codes")
    if values and set(map(type, values)) != {int}:
        raise _bad("rtt must hold whole numbers only")
    if values and not (min(values) >= LOWEST_OUTCOME and max(values) <= MAX_RTT_US):
        raise _bad(f"rtt must lie between {int(LOWEST_OUTCOME)} and {MAX_RTT_US}")
    return array("i", values)


def decode_packed(text: object) -> array[int]:
    """The same out of base64 of little-endian int32."""
    if not isinstance(text, str):
        raise _bad("rtt32 must be text in base64")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise _bad("rtt32 is not base64") from None
    if len(data) % 4:
        raise _bad("rtt32 must hold 4 bytes per target")
    values = array("i")
    values.frombytes(data)
    values = _little(values)
    if values and not (min(values) >= LOWEST_OUTCOME and max(values) <= MAX_RTT_US):
        raise _bad(f"rtt must lie between {int(LOWEST_OUTCOME)} and {MAX_RTT_US}")
    return values


def _gap(value: object) -> tuple[int, int, str] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and len(value) == 3:
        first, last, reason = value
        if type(first) is int and type(last) is int and 1 <= first <= last < _SEQ_LIMIT and isinstance(reason, str):
            return first, last, reason[:32]
    raise _bad("gap must be [first, last, reason]")
