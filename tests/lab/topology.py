"""The lab's small world as a table: cities, what the way from one to another does to a packet, and when it is down.

Everything in seconds and fractions inside; milliseconds and percent in the file. Must not know: sockets, namespaces.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DEFAULT = Path(__file__).with_name("topology.toml")
SERVER = "server"
_PATH_KEYS = {"delay_ms", "jitter_ms", "loss_percent"}


class TopologyError(Exception):
    """The file is no topology; the text says which word is wrong and what may stand there."""


@dataclass(frozen=True)
class Way:
    """One direction between two places: delay and jitter (uniform, plus or minus) in seconds, loss as a fraction."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class Outage:
    """Between two places nothing passes, either way, for `down_s` out of `every_s`, the first time after `after_s`."""

    a: str
    b: str
    after_s: float
    down_s: float
    every_s: float

    def is_down(self, since_start_s: float) -> bool:
        """Whether the path is down this long after the start of the lab."""
        elapsed = since_start_s - self.after_s
        return elapsed >= 0 and elapsed % self.every_s < self.down_s


@dataclass(frozen=True)
class Topology:
    """`cities` in order (the server stands in the first); `ways[a, b]` for every ordered pair of different places."""

    cities: tuple[str, ...]
    ways: dict[tuple[str, str], Way]
    outages: tuple[Outage, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The server and all cities: whoever has a network interface."""
        return (SERVER, *self.cities)

    def rtt_ms(self, a: str, b: str) -> float:
        """What a ping from a to b takes, in milliseconds, without jitter."""
        return (self.ways[a, b].delay_s + self.ways[b, a].delay_s) * 1000

    def calm(self) -> Topology:
        """The same world without jitter, loss and scheduled outages: what exact measurements are made against."""
        ways = {pair: replace(way, jitter_s=0.0, loss=0.0) for pair, way in self.ways.items()}
        return Topology(self.cities, ways)


def load(path: Path) -> Topology:
    """Read a topology file; raises TopologyError."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TopologyError(f"{path} cannot be read as TOML: {error}") from None
    cities = tuple(str(city["name"]) for city in document.get("city", []))
    if len(set(cities)) != len(cities) or len(cities) < 2 or SERVER in cities:
        raise TopologyError(f"{path} needs at least two [[city]] tables with different names, none of them {SERVER!r}")
    ways = _ways(cities, document.get("path", {}))
    outages = tuple(_outage(cities, table) for table in document.get("outage", []))
    return Topology(cities, {**ways, **_server_ways(cities, ways)}, outages)


def split(cities: tuple[str, ...], name: str) -> tuple[str, str, bool]:
    """("lon-nyc" or "lon>nyc") -> (lon, nyc, whether both directions are meant)."""
    for mark in "->":
        a, found, b = name.partition(mark)
        if found and a in cities and b in cities and a != b:
            return a, b, mark == "-"
    raise TopologyError(f"{name!r} is no path: write two of {', '.join(cities)} with - (both ways) or > between them")


def _ways(cities: tuple[str, ...], table: dict[str, Any]) -> dict[tuple[str, str], Way]:
    ways = {}
    for name, values in table.items():
        a, b, both = split(cities, name)
        if not set(values) <= _PATH_KEYS or "delay_ms" not in values:
            raise TopologyError(
                f"{name}: a path has delay_ms, and may have jitter_ms and loss_percent, and no other key"
            )
        ways[a, b] = Way(
            values["delay_ms"] / 1000, values.get("jitter_ms", 0.0) / 1000, values.get("loss_percent", 0.0) / 100
        )
        if both:
            ways[b, a] = ways[a, b]
    for a in cities:
        missing = [b for b in cities if b != a and (a, b) not in ways]
        if missing:
            raise TopologyError(f"there is no path {a}>{missing[0]}: add one, or {a}-{missing[0]} for both ways")
    return ways


def _server_ways(cities: tuple[str, ...], ways: dict[tuple[str, str], Way]) -> dict[tuple[str, str], Way]:
    """The server hears each agent as its city does, without loss: the lab is about paths, not about a broken uplink."""
    home = cities[0]
    found = {(SERVER, home): Way(), (home, SERVER): Way()}
    for city in cities[1:]:
        found[SERVER, city] = replace(ways[home, city], loss=0.0)
        found[city, SERVER] = replace(ways[city, home], loss=0.0)
    return found


def _outage(cities: tuple[str, ...], table: dict[str, Any]) -> Outage:
    a, b, _ = split(cities, str(table.get("path")))
    outage = Outage(a, b, float(table.get("after_s", 0)), float(table["down_s"]), float(table["every_s"]))
    if not 0 < outage.down_s < outage.every_s:
        raise TopologyError(f"outage {a}-{b}: down_s must be more than 0 and less than every_s")
    return outage
