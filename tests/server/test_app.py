"""The wiring: which pages may open a socket."""

from __future__ import annotations

import pytest

from pingmon.app import may_come_from
from pingmon.config import build

PUBLIC = "https://monitor.example.net:8443"


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (PUBLIC, "monitor.example.net:8443", True),
        (PUBLIC, "inside.proxy:9000", True),
        ("https://192.0.2.5:8443", "192.0.2.5:8443", True),
        ("https://[2001:db8::5]:8443", "[2001:db8::5]:8443", True),
        ("https://localhost:8443", "localhost:8443", True),
        ("https://192.0.2.6", "192.0.2.5:8443", False),
        ("https://192.0.2.5:9", "192.0.2.5:8443", False),
        ("http://192.0.2.5:8443", "192.0.2.5:8443", False),
        ("https://rebound.example.com:8443", "rebound.example.com:8443", False),
        ("null", "192.0.2.5:8443", False),
        ("https://[", "192.0.2.5:8443", False),
    ],
)
def test_a_socket_is_opened_by_our_own_pages_only(origin: str, host: str, allowed: bool) -> None:
    """By every name the pages answer to, the live picture comes too; a rebound or foreign name gets neither."""
    config = build({"server": {"public_url": PUBLIC}}, {})

    assert may_come_from(config)(origin, {"HTTP_HOST": host}) is allowed
