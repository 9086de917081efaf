"""Refusals: what a user asked for cannot be done, and the text says what to do instead. Never used for bugs."""

from __future__ import annotations

from typing import Final

# What pages and programs are told of a StoreError.
AWAY: Final = "the sample store cannot be read now ({}); try again in a moment"


class Refused(Exception):  # noqa: N818 - reads as a word: `except Refused`
    """Parent of all refusals. `code` is for programs, `message` for people."""

    code = "refused"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(Refused):
    """There is no such thing."""

    code = "not_found"


class Conflict(Refused):
    """It cannot be done in the present state."""

    code = "conflict"


class Invalid(Refused):
    """The input itself is wrong."""

    code = "invalid"


class Unavailable(Refused):
    """It would be right, but something the server needs is away; trying again later helps."""

    code = "unavailable"
