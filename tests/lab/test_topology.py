"""The lab's table and the decisions of its network, without any packet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.forwarder import Network
from tests.lab.topology import DEFAULT, SERVER, Outage, TopologyError, Way, load

TWO = '[[city]]\nname = "aaa"\n[[city]]\nname = "bbb"\n[path]\n"aaa-bbb" = { delay_ms = 5 }\n'


def world(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "world.toml"
    path.write_text(text)
    return path


def test_the_shipped_world_is_complete() -> None:
    """The shipped table has at least five cities, a way for every ordered pair, and an outage."""
    topology = load(DEFAULT)

    assert len(topology.cities) >= 5
    assert {(a, b) for a in topology.places for b in topology.cities if a != b} <= set(topology.ways)
    assert topology.outages
    assert topology.ways["sin", "syd"] != topology.ways["syd", "sin"]
    assert topology.rtt_ms("sin", "syd") == topology.rtt_ms("syd", "sin") == pytest.approx(108)


def test_calm_keeps_delays_only() -> None:
    """The calm world has the same delays and neither jitter, loss nor outages."""
    rough = load(DEFAULT)
    calm = rough.calm()

    assert calm.outages == ()
    assert all(way == Way(delay_s=rough.ways[pair].delay_s) for pair, way in calm.ways.items())


def test_the_server_stands_in_the_first_city(tmp_path: Path) -> None:
    """The server is at no distance from the first city and as far from others as that city is."""
    topology = load(world(tmp_path, TWO))

    assert topology.ways[SERVER, "aaa"] == Way()
    assert topology.ways["bbb", SERVER] == Way(delay_s=0.005)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[city]]\nname = 'one'\n", "needs at least two [[city]] tables with different names, none of them 'server'"),
        (TWO.replace("aaa-bbb", "aaa-ccc"), "'aaa-ccc' is no path: write two of aaa, bbb with - (both ways) or >"),
        (TWO.replace("aaa-bbb", "aaa>bbb"), "there is no path bbb>aaa: add one, or bbb-aaa for both ways"),
        (TWO.replace("delay_ms", "delay"), "aaa-bbb: a path has delay_ms, and may have jitter_ms and loss_percent"),
        (
            TWO + "[[outage]]\npath = 'aaa-bbb'\ndown_s = 9\nevery_s = 9\n",
            "outage aaa-bbb: down_s must be more than 0 and less than every_s",
        ),
        ("city = [", "cannot be read as TOML"),
    ],
)
def test_a_bad_table_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """Each mistake in the table is named, with what may stand there."""
    with pytest.raises(TopologyError) as refused:
        load(world(tmp_path, text))

    assert sentence in str(refused.value)


def test_an_outage_comes_and_goes() -> None:
    """An outage is down for its first seconds of every period, and not before its first time."""
    outage = Outage("a", "b", after_s=10, down_s=30, every_s=120)

    assert [outage.is_down(t) for t in (0, 9.9, 10, 39.9, 40, 129, 130, 159, 160)] == [
        False, False, True, True, False, False, True, True, False,
    ]  # fmt: skip


def test_force_beats_schedule_until_auto() -> None:
    """down and up override the schedule in both directions; auto gives it back."""
    network = Network({("a", "b"): Way(), ("b", "a"): Way()}, (Outage("a", "b", 10, 30, 120),), started=0)

    assert network.order({"op": "down", "a": "a", "b": "b"}) == {"ok": True}
    assert network.is_down(("b", "a"), now=0)
    network.order({"op": "up", "a": "a", "b": "b"})
    assert not network.is_down(("a", "b"), now=20)
    network.order({"op": "auto"})
    assert network.is_down(("a", "b"), now=20)


def test_set_changes_one_direction() -> None:
    """set changes delay, jitter and loss of one direction and leaves the other alone."""
    network = Network({("a", "b"): Way(), ("b", "a"): Way()}, (), started=0)

    network.order({"op": "set", "a": "a", "b": "b", "delay_ms": 20, "jitter_ms": 1, "loss_percent": 5})

    assert network.ways == {("a", "b"): Way(0.02, 0.001, 0.05), ("b", "a"): Way()}


def test_nonsense_is_refused() -> None:
    """A control message that means nothing is answered with what would."""
    network = Network({("a", "b"): Way()}, (), started=0)

    for message in ({"op": "set", "a": "a", "b": "x", "delay_ms": 1}, {"op": "reboot"}, []):
        assert network.order(message) == {  # type: ignore[arg-type]
            "ok": False,
            "message": "ops are down, up, auto, set, state; places are those of the topology",
        }
