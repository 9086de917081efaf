"""A server that says what a test wants, and real agents before it; everything ends with the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from tests.agent.certificates import Authority, Leaf
from tests.agent.pretend import AgentProcess, PretendServer


class Stage:
    """The agents trust the server's certificate, whoever it is; `always` are settings that each of them gets."""

    def __init__(self, folder: Path, **always: str) -> None:
        self.folder, self._always = folder, always
        self.authority = Authority(folder / "ca")
        self.leaf: Leaf = self.authority.issue("127.0.0.1", "localhost")
        self.server = PretendServer(self.leaf)
        self.agents: list[AgentProcess] = []

    def agent(self, *flags: str, **more: Any) -> AgentProcess:
        """Start one; `more` as in AgentProcess."""
        ca = self.authority.file
        self.agents.append(AgentProcess(self.folder, self.server.port, ca, *flags, **{**self._always, **more}))
        return self.agents[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        for agent in self.agents:
            agent.stop()
        self.server.close()
