"""The bed itself: what the deploy tests rest on is so."""

from __future__ import annotations

import re

from tests.support.processes import wait_for

from .bed import facts
from .bed.bed import Bed
from .bed.host import Host
from .bed.rules import Rule


def round_trips_ms(host: Host, target: str, count: int = 10) -> list[float]:
    said = host.run("ping", "-c", str(count), "-i", "0.05", "-W", "1", target, check=False).stdout
    return [float(value) for value in re.findall(r"time=([\d.]+) ms", said)]


def test_all_hosts_are_up_and_whole(bed: Bed) -> None:
    """systemd of each host has nothing to complain about."""
    assert bed.each(facts.state) == ["running"] * 3


def test_a_delay_per_direction_shows_in_the_round_trip(network: Bed) -> None:
    """30 ms each way are 60 ms; without a rule there is no delay worth the name."""
    plain = round_trips_ms(network["agent1"], "server")
    network.link("agent1", "server", Rule(delay_s=0.030))
    delayed = round_trips_ms(network["agent1"], "server")

    assert len(plain) == len(delayed) == 10
    assert sorted(plain)[5] < 5
    assert min(delayed) >= 60
    assert sorted(delayed)[5] < 70


def test_a_partition_parts_and_heals(network: Bed) -> None:
    """Only the one host is cut off."""
    network.partition("agent1")
    assert round_trips_ms(network["agent1"], "server", 1) == []
    assert len(round_trips_ms(network["agent2"], "server", 1)) == 1
    network.heal()
    assert len(round_trips_ms(network["agent1"], "server", 1)) == 1


def test_power_cut_and_boot(bed: Bed) -> None:
    """A host without power does not answer; what was on its disk is there afterwards."""
    host = bed["agent1"]
    host.run("sh", "-c", "echo kept >/var/lib/kept")
    host.cut_power()
    assert round_trips_ms(bed["agent2"], "agent1", 1) == []
    host.boot()
    assert host.run("cat", "/var/lib/kept").stdout == "kept\n"
    assert facts.state(host) == "running"


def test_a_host_that_reboots_comes_back(bed: Bed) -> None:
    """With a kernel state of its own: what was set by hand is gone, what is on disk is not."""
    host = bed["agent2"]
    boots = host.boots
    host.run("sysctl", "-w", "net.ipv4.ping_group_range=7 7")
    host.run("systemctl", "reboot", check=False)
    wait_for(lambda: host.boots == boots + 1, "agent2 to boot")
    assert host.run("sysctl", "-n", "net.ipv4.ping_group_range").stdout.split() == ["1", "0"]
    assert len(round_trips_ms(host, "server", 1)) == 1


def test_rollback_forgets(bed: Bed) -> None:
    """What was written since the last snapshot is gone, what was written before is not; reset forgets all."""
    host = bed["server"]
    before = facts.files(host)
    host.run("sh", "-c", "echo 1 >/etc/first")
    bed.freeze("server")
    host.run("sh", "-c", "echo 2 >/etc/second; rm /etc/first")
    changed = [line.split(":")[0] for line in facts.difference(before, facts.files(host))]
    bed.rollback("server")
    assert (host.run("cat", "/etc/first").stdout, host.inside("/etc/second").exists()) == ("1\n", False)
    bed.reset("server")
    assert changed == ["+ /etc/second"]
    assert facts.difference(before, facts.files(host)) == []


def test_prometheus_can_be_had_without_a_network(bed: Bed) -> None:
    """The image of the server's host brings its packages, whole, for the apt that is in it."""
    host = bed["server"]
    host.run("apt-get", "update", "-qq")
    host.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "--download-only", "prometheus")
    assert "/srv/apt" in host.run("apt-cache", "policy", "prometheus").stdout
    bed.rollback("server")
