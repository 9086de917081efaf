"""An engine in a namespace of its own, opposite a responder that does as a script says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pingmon_agent.engine import EchoEngine
from pingmon_agent.plan import Plan, Probed, Tally, Way

from .namespaces import Namespace
from .tun import HOST, Responder, Script


@dataclass
class Wire:
    """A namespace whose engine (raw or not) talks to a scripted responder."""

    space: Namespace
    responder: Responder
    unprivileged: bool = False

    def rounds(
        self,
        script: Script,
        *addresses: str,
        count: int = 1,
        timeout_s: float = 0.3,
        window_s: float = 0.0,
        before: Callable[[int], None] = lambda number: None,
        ways: list[Way] | None = None,
    ) -> list[Probed]:
        """Rounds of a fresh engine; its tally is `self.tally` afterwards. `before` is called with each one's number."""
        self.responder.script, self.responder.seen = script, 0

        def work() -> list[Probed]:
            engine = EchoEngine()
            self.tally: Tally = engine.tally
            assert engine.mode == ("dgram" if self.unprivileged else "raw")
            try:
                plan = Plan(addresses=addresses or (HOST,), window_s=window_s, timeout_s=timeout_s, ways=ways)
                return [(before(number), engine.run_round(plan))[1] for number in range(count)]
            finally:
                engine.close()

        return self.space.run(work, unprivileged=self.unprivileged)

    def outcome(self, script: Script, address: str = HOST, *, timeout_s: float = 0.3) -> int:
        """The one sample of one round."""
        return self.rounds(script, address, timeout_s=timeout_s)[0].samples[0]


@pytest.fixture(params=["raw", "dgram"])
def wire(request: pytest.FixtureRequest, make_namespace: Callable[[], Namespace]) -> Iterator[Wire]:
    """A wire of each kind of socket."""
    space = make_namespace()
    space.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    responder = Responder(space, lambda packet: [])
    yield Wire(space, responder, request.param == "dgram")
    responder.close()


@pytest.fixture
def raw_wire(make_namespace: Callable[[], Namespace]) -> Iterator[Wire]:
    """A wire for what only raw sockets see."""
    space = make_namespace()
    responder = Responder(space, lambda packet: [])
    yield Wire(space, responder)
    responder.close()
