"""The cable between a host and the switch. A host gets a fresh network namespace at each boot: a kernel that starts
knows no connection, no setting and no firewall rule of the one before, and a host without power answers nothing.

Must not know: what runs on the host.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

NAMESPACES = Path("/run/netns")


def device(host: str) -> str:
    """The name of the host's end while it hangs loose, beside the switch."""
    return f"p-{host}"


class Cable:
    """One end is the switch's, who made the device; the other goes into the namespace of the host, as `host0`."""

    def __init__(self, host: str, address: str) -> None:
        self.host, self.address = host, address
        self.namespace = NAMESPACES / host

    def plug_in(self) -> None:
        """A new namespace, with the cable in it and the address on it."""
        self.pull_out()
        ip("netns", "add", self.host)
        ip("link", "set", device(self.host), "netns", self.host, "name", "host0")
        ip("-n", self.host, "link", "set", "lo", "up")
        ip("-n", self.host, "addr", "add", f"{self.address}/24", "dev", "host0")
        ip("-n", self.host, "link", "set", "host0", "up")

    def pull_out(self) -> None:
        """From now on no frame passes. The namespace goes when the last process of the host is gone."""
        if not self.namespace.exists():
            return
        loose = device(self.host)
        ip("-n", self.host, "link", "set", "host0", "down")
        ip("-n", self.host, "link", "set", "host0", "name", loose)
        ip("-n", self.host, "link", "set", loose, "netns", "1")  # that of our first process, spaces.py
        ip("netns", "delete", self.host)


def ip(*words: str) -> None:
    """iproute2; CalledProcessError where it refuses, its words on stderr."""
    subprocess.run(["ip", *words], check=True)
