"""The live picture for browsers: Socket.IO namespace `/grid`: layout as JSON, cells as bytes, each second the news.

`rows` carries R x T int32 (little-endian: RTT in us or outcome code), then R x T bytes of states. Every event has a
number; a browser that misses one asks to `resync`. Must not know: the database, agents, how people sign in.
"""

from __future__ import annotations

import logging
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import Any

from flask import request
from flask_socketio import ConnectionRefusedError as Refused
from flask_socketio import SocketIO, emit, join_room

from pingmon.services.bundle import Services
from pingmon_agent.wire.contract import ErrorCode

from .lines import Lines

Json = dict[str, Any]
NAMESPACE = "/grid"
ROOM = "grid"
TICK_S = 1.0
log = logging.getLogger("pingmon.grid")


class GridSocket:
    """All browsers that look at the grid. `viewer` says who is behind the current request (None: nobody)."""

    def __init__(self, socket: SocketIO, services: Services, viewer: Callable[[], int | None], lines: Lines) -> None:
        self._socket, self._services, self._viewer, self._lines = socket, services, viewer, lines
        self._users: dict[str, int] = {}
        self._seq = 0
        self._told: Json = {}
        self._stale: set[int] = set()
        socket.on_event("connect", self._connect, namespace=NAMESPACE)
        socket.on_event("disconnect", self._disconnect, namespace=NAMESPACE)
        socket.on_event("resync", self._resync, namespace=NAMESPACE)
        socket.server.on("*", self._unknown, namespace=NAMESPACE)

    @property
    def connections(self) -> int:
        """Open browsers, for metrics."""
        return len(self._users)

    def kick(self, user_id: int) -> None:
        """Close every connection of somebody who may no longer look."""
        for sid in [sid for sid, user in self._users.items() if user == user_id]:
            self._lines.hang_up(sid, NAMESPACE, "signed out")

    # -- events --

    def _connect(self, _auth: object = None) -> None:
        user = self._viewer()
        if user is None:
            raise Refused("sign in first")
        self._users[self._sid()] = user
        self._lines.settle(self._sid(), NAMESPACE)
        join_room(ROOM, namespace=NAMESPACE)
        self._send_all()

    def _disconnect(self, _reason: object = None) -> None:
        self._users.pop(self._sid(), None)
        self._lines.unsettle(self._sid(), NAMESPACE)

    @staticmethod
    def _unknown(_event: str, _sid: str, fault: object = None, _wants_ack: object = None) -> Json:
        return {"ok": False, "code": ErrorCode.UNKNOWN_EVENT, "message": f"no event of this namespace ({fault})"[:300]}

    def _resync(self, _data: object = None, _wants_ack: object = None) -> None:
        if self._sid() in self._users:
            self._send_all()

    @staticmethod
    def _sid() -> str:
        return str(request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO adds it

    def _send_all(self) -> None:
        emit("layout", self._services.grid.layout_json(), namespace=NAMESPACE)
        meta, cells = self._rows(range(len(self._services.grid.layout.agents)))
        emit("rows", (meta, cells), namespace=NAMESPACE)

    # -- ticks --

    def run(self) -> None:
        """Tell everybody once a second what changed; belongs in a background task."""
        while True:
            self._socket.sleep(TICK_S)
            try:
                self._tick()
            except Exception:
                log.exception("the picture could not be sent")

    def _tick(self) -> None:
        grid, now = self._services.grid, self._services.clock.wall_ms()
        changed, grid.changed = grid.changed, set()
        stale = {a.no for a in grid.layout.agents if grid.stale(a.no, now)}
        changed |= stale ^ self._stale
        self._stale = stale
        if not self._users:
            return
        layout = grid.layout_json()
        if layout != self._told:
            self._told = layout
            self._socket.emit("layout", layout, to=ROOM, namespace=NAMESPACE)
            changed = {a.no for a in grid.layout.agents}
        indices = [i for i, a in enumerate(grid.layout.agents) if a.no in changed]
        if indices:
            self._seq += 1
            self._socket.emit("rows", self._rows(indices), to=ROOM, namespace=NAMESPACE)

    def _rows(self, indices: Iterable[int]) -> tuple[Json, bytes]:
        grid, now = self._services.grid, self._services.clock.wall_ms()
        chosen = [(i, grid.row(grid.layout.agents[i].no, now)) for i in indices]
        values, states = array("i"), bytearray()
        for _, row in chosen:
            values.extend(row.last)
            states += row.states
        if sys.byteorder == "big":
            values.byteswap()
        meta = {
            "version": grid.layout.version,
            "seq": self._seq,
            "now_ms": now,
            "rows": [[i, row.heard_ms, row.disturbed] for i, row in chosen],
        }
        return meta, values.tobytes() + bytes(states)
