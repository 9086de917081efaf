"""A TCP proxy on loopback between agents and server, whose lines can be made bad: held, blind, frozen, slow or cut.

What is held is delivered later, in order, as TCP does it; what a blind direction swallows is gone, and so is the line.
Must not know: what travels through it.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class Line:
    """One connection: the agent's end, the server's end, and what is wrong with it."""

    agent: socket.socket
    server: socket.socket
    opened: float = field(default_factory=time.monotonic)
    blind_to_agent: bool = False  # what the server says is swallowed
    frozen: bool = False  # nothing is forwarded either way, and the ends are kept open
    server_left: float | None = None  # when the server closed its end
    agent_left: float | None = None

    def half_open(self) -> None:
        """The agent's end is cut; the server is not told, and hears nothing more."""
        self.frozen = True
        with contextlib.suppress(OSError):
            self.agent.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut it, so that both ends see it."""
        for end in (self.agent, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Weather:
    """Of all lines: whether data moves, how long that takes, how often three times as long (a packet lost)."""

    up: bool = True
    delay_s: float = 0.0
    loss: float = 0.0


class Proxy:
    """Listens on a free port and connects through to `port`. `lines` are all connections so far, also ended ones."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._target, self._rng = port, rng
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.lines: list[Line] = []
        self.weather = Weather()
        self.on_open: Callable[[Line], None] = lambda _line: None
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                agent, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                agent.close()
                continue
            server.settimeout(None)
            line = Line(agent, server)
            self.on_open(line)
            self.lines.append(line)
            for to_agent in (False, True):
                threading.Thread(target=self._carry, args=(line, to_agent), daemon=True).start()

    def _carry(self, line: Line, to_agent: bool) -> None:
        """One direction of one line until its source ends; what waits has a time before which it may not go on."""
        source, sink = (line.server, line.agent) if to_agent else (line.agent, line.server)
        waiting: deque[tuple[float, bytes]] = deque()
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(source, selectors.EVENT_READ)
            while True:
                if selector.select(self._patience(waiting)) and not self._take(line, source, to_agent, waiting):
                    break
                self._release(line, sink, waiting)
        self._left(line, sink, to_agent)

    def _patience(self, waiting: deque[tuple[float, bytes]]) -> float:
        """Seconds to wait for more; looks again ten times a second while the weather holds data back."""
        if not waiting:
            return 1.0
        return min(0.1, max(0.0, waiting[0][0] - time.monotonic())) if self.weather.up else 0.1

    def _take(self, line: Line, source: socket.socket, to_agent: bool, waiting: deque[tuple[float, bytes]]) -> bool:
        data = source.recv(CHUNK)
        if not data:
            return False
        if line.frozen or (to_agent and line.blind_to_agent):
            return True
        weather = self.weather
        delay = weather.delay_s * (3 if self._rng.random() < weather.loss else self._rng.uniform(0.7, 1.3))
        # In order, as TCP has it: a late packet holds back what was sent after it.
        due = max(time.monotonic() + delay, waiting[-1][0] if waiting else 0.0)
        waiting.append((due, data))
        return True

    def _release(self, line: Line, sink: socket.socket, waiting: deque[tuple[float, bytes]]) -> None:
        if line.frozen:
            waiting.clear()
        while waiting and self.weather.up and waiting[0][0] <= time.monotonic():
            sink.sendall(waiting.popleft()[1])

    def _left(self, line: Line, sink: socket.socket, to_agent: bool) -> None:
        if to_agent:
            line.server_left = time.monotonic()
        else:
            line.agent_left = time.monotonic()
        # A frozen line keeps the end of the one from the other.
        if not line.frozen:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut all lines that are open."""
        for line in list(self.lines):
            line.close()

    def close(self) -> None:
        """Listen no more and cut everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
