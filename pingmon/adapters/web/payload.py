"""JSON bodies, checked strictly: unknown, missing and mistyped fields are refused with a sentence that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import request

from pingmon.services.errors import Invalid

WORDS: Final[dict[type, str]] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def body(required: Mapping[str, type], optional: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The request's JSON object with exactly these fields. Raises Invalid; a body that is no JSON gives 400 or 415."""
    return fields(request.get_json(), "the body", required, optional or {})


def fields(value: object, where: str, required: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Any]:
    """`value` as an object with exactly these fields; `where` names it in refusals. Raises Invalid."""
    allowed = {**required, **optional}
    if not isinstance(value, dict):
        raise Invalid(f"{where} must be an object with the fields {', '.join(allowed)}")
    for name in value:
        if name not in allowed:
            raise Invalid(f"{where} has a field {name!r} that is not known; it may have {', '.join(allowed)}")
    for name in required:
        if name not in value:
            raise Invalid(f"{where} lacks the field {name!r}; add it")
    for name, kind in allowed.items():
        # `type is`, not isinstance: true is no number here
        if name in value and type(value[name]) is not kind:
            raise Invalid(f"{where}: {name} must be {WORDS[kind]}")
    return value
