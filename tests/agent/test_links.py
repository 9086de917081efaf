"""The broadcast addresses of this host, against what `ip` shows, in a network of the test's own."""

from __future__ import annotations

from contextlib import closing

import pytest

from pingmon_agent.links import broadcasts

from .namespaces import Namespace


def test_the_host_s_own_networks_are_told() -> None:
    """Loopback is always there, its broadcast address is that of its /8."""
    assert "127.255.255.255" in broadcasts()


@pytest.mark.root
def test_every_prefix_has_its_own_broadcast_address() -> None:
    """As prefix and as configured by hand; point-to-point networks have none."""
    with closing(Namespace()) as here:
        for word in ("10.1.2.3/24", "10.2.2.3/22", "10.3.0.1/31", "10.4.0.1/32", "10.5.0.1/24 broadcast 10.5.0.99"):
            here.ip("address", "add", *word.split(), "dev", "lo")
        found = here.run(broadcasts)

    expected = {"10.1.2.255", "10.2.3.255", "10.5.0.255", "10.5.0.99", "127.255.255.255"}
    assert found == expected
