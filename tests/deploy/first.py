"""The first deployment of a session, once for all tests: bare hosts, a check, site.yml three times, what was seen.

The third time it is the oldest Ansible that the collection is for: one more run, and two answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .bed import facts

if TYPE_CHECKING:
    from .bed.ansible import Played
    from .bed.facts import Entry
    from .bed.host import Host
    from .fleet import Fleet


@dataclass
class First:
    """What the tests look at. Times in seconds."""

    before: dict[str, dict[str, Entry]] = field(default_factory=dict)
    check_failed: int = -1
    check_left: list[str] = field(default_factory=list)
    run: Played | None = None
    run_s: float = 0.0
    live_after_s: float = 0.0
    states: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    again: list[Played] = field(default_factory=list)
    rebooted: set[str] = field(default_factory=set)
    rolled_back: int = 0
    left: int = -1

    def changes_of(self, host: Host) -> list[str]:
        """What is not on a host as it was before anything was deployed, but for the copies that useradd keeps."""
        kept = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")
        lines = facts.difference(self.before[host.name], facts.files(host))
        return [line for line in lines if line[2:].split(":")[0] not in kept]

    def result(self, hosts: int) -> dict[str, float]:
        """The keys of RESULT deploy (design.md); -1 where the run did not get that far."""
        return {
            "hosts": hosts,
            "first_run_s": self.run_s,
            "second_run_changed": sum(self.again[0].changed.values()) if self.again else -1,
            "check_failed": self.check_failed,
            "reboot_ok": len(self.rebooted) == hosts,
            "rollback_ok": self.rolled_back,
            "uninstall_left": self.left,
        }


def deploy(fleet: Fleet) -> First:
    """Check, deploy, look, deploy twice more."""
    seen, hosts = fleet.first, list(fleet.bed.hosts.values())
    seen.before = {host.name: facts.files(host) for host in hosts}
    checked = fleet.play("site.yml", "--check", "--diff", check=False)
    seen.check_failed = (
        sum(counts["failed"] + counts["unreachable"] for counts in checked.recap.values()) or checked.code
    )
    seen.check_left = [line for host in hosts for line in seen.changes_of(host)]
    began = time.time()
    seen.run = fleet.play("site.yml")
    seen.run_s = time.time() - began
    fleet.become_admin()
    fleet.wait_until_live(began)
    seen.live_after_s = time.time() - began - seen.run_s
    seen.again = [fleet.play("site.yml"), fleet.play("site.yml", core="oldest")]
    seen.states = [facts.state(host) for host in hosts]
    seen.errors = [
        f"{host.name}: {entry['MESSAGE']}" for host in hosts for entry in facts.journal(host, priority="err", boots="0")
    ]
    return seen
