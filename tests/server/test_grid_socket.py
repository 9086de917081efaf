"""What browsers get over the live socket, byte by byte."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from flask import Flask
from flask_socketio import SocketIO, SocketIOTestClient

from pingmon.adapters.grid_socket import NAMESPACE, GridSocket
from pingmon.adapters.lines import Lines
from pingmon.adapters.packet import CheckedPacket
from pingmon.services.bundle import Services
from pingmon.services.cells import CellState
from pingmon.services.limits import Allowance
from pingmon.store.rounds import StoredRound

from .conftest import Approve, FakeClock


class Page:
    """A grid socket of its own, with somebody (or nobody) signed in."""

    def __init__(self, services: Services) -> None:
        self.services, self.user = services, 1
        self.app = Flask("test")
        self.app.secret_key = "test"
        self.sockets = SocketIO(self.app, async_mode="threading", serializer=CheckedPacket)
        lines = Lines(self.sockets.server, Allowance((), ()), services.clock.monotonic)
        self.grid = GridSocket(self.sockets, services, lambda: self.user or None, lines)

    def open(self) -> SocketIOTestClient:
        return self.sockets.test_client(self.app, namespace=NAMESPACE)

    def tick(self) -> None:
        self.grid._tick()


@pytest.fixture
def page(services: Services, approve: Approve) -> Page:
    services.registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    approve("one", "192.0.2.1")
    approve("two", "192.0.2.2")
    return Page(services)


def received(client: SocketIOTestClient) -> list[tuple[str, Any]]:
    return [(event["name"], event["args"]) for event in client.get_received(NAMESPACE)]


def cells(args: Any, width: int) -> dict[int, tuple[list[int], list[int]]]:
    """{row: (values, states)} out of a `rows` event."""
    meta, data = args
    count = len(meta["rows"])
    assert len(data) == count * width * 5
    values = array("i")
    values.frombytes(data[: count * width * 4])
    states = data[count * width * 4 :]
    return {
        row: (values[k * width : (k + 1) * width].tolist(), list(states[k * width : (k + 1) * width]))
        for k, (row, *_) in enumerate(meta["rows"])
    }


def measure(services: Services, clock: FakeClock, row: int, *samples: int) -> None:
    agent = services.grid.layout.agents[row]
    current = services.registry.snapshot.sets[agent.no]
    clock.advance(1)
    services.grid.add(
        StoredRound(
            agent_no=agent.no,
            epoch="e",
            seq=clock.now_ms,
            started_ms=clock.now_ms,
            revision=current.revision,
            flags=0,
            received_ms=clock.now_ms,
            samples=array("i", samples),
        ),
        current.target_ids,
    )


def test_nobody_sees_the_grid_without_signing_in(page: Page) -> None:
    """The connection itself is refused, so no event can leak."""
    page.user = 0

    assert not page.open().is_connected(NAMESPACE)


def test_a_newcomer_gets_everything(page: Page, clock: FakeClock) -> None:
    """Layout first, then one row per agent, own column empty."""
    measure(page.services, clock, 0, 1234, -1, 77)
    (first, layout), (second, rows) = received(page.open())

    assert (first, second) == ("layout", "rows")
    assert [a["hostname"] for a in layout[0]["agents"]] == ["one", "two"]
    assert [t["name"] for t in layout[0]["targets"]] == ["a", "b", "one", "two"]
    assert layout[0]["thresholds"] == {"warn_ms": 50.0, "bad_ms": 200.0}
    assert cells(rows, 4) == {
        0: ([1234, -1, -2, 77], [CellState.OK, CellState.LOSSY, CellState.NONE, CellState.OK]),
        1: ([-2] * 4, [CellState.NONE] * 4),
    }


def test_a_tick_sends_only_what_changed(page: Page, clock: FakeClock) -> None:
    """One agent's round is one row; a quiet second is no message; numbers rise by one."""
    client = page.open()
    page.tick()
    received(client)

    measure(page.services, clock, 1, 5, 6, 7)
    page.tick()
    [(name, rows)] = received(client)
    page.tick()

    assert name == "rows"
    assert list(cells(rows, 4)) == [1]
    assert received(client) == []
    measure(page.services, clock, 1, 5, 6, 7)
    page.tick()
    assert received(client)[0][1][0]["seq"] == rows[0]["seq"] + 1


def test_silence_is_news(page: Page, clock: FakeClock) -> None:
    """A row whose agent fell silent is sent once more, as stale."""
    client = page.open()
    measure(page.services, clock, 0, 1, 2, 3)
    page.tick()
    received(client)

    clock.advance(16)
    page.tick()
    [(_, rows)] = received(client)
    page.tick()

    assert cells(rows, 4)[0][1] == [CellState.STALE, CellState.STALE, CellState.NONE, CellState.STALE]
    assert received(client) == []


def test_new_columns_come_with_all_rows(page: Page) -> None:
    """After a change of targets the layout and every row go out under the new version."""
    client = page.open()
    page.tick()
    received(client)

    page.services.registry.add_target("c", "192.0.2.12", "test")
    page.tick()
    (_, layout), (_, rows) = received(client)

    assert layout[0]["version"] == rows[0]["version"]
    assert list(cells(rows, 5)) == [0, 1]


def test_resync_starts_over_for_one_browser(page: Page) -> None:
    """A browser that missed a number asks again; the others hear nothing."""
    one, two = page.open(), page.open()
    received(one), received(two)

    one.emit("resync", namespace=NAMESPACE)

    assert [name for name, _ in received(one)] == ["layout", "rows"]
    assert received(two) == []


def test_signing_out_ends_the_picture(page: Page) -> None:
    """The sockets of somebody who left are closed, those of others stay."""
    mine = page.open()
    page.user = 2
    yours = page.open()

    page.grid.kick(1)

    assert not mine.is_connected(NAMESPACE)
    assert yours.is_connected(NAMESPACE)
    assert page.grid.connections == 1
