"""Ids that the world sees. Must not know: what they name."""

from __future__ import annotations

import secrets


def new_uid(wall_ms: int) -> str:
    """A UUIDv7: time-ordered and never used again."""
    value = (wall_ms & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
