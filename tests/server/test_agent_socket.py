"""The agents' namespace without a network: what its handlers answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pingmon.app import Application
from pingmon.config import Config
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import NAMESPACE
from tests.support.fresh import fresh_services

from .conftest import EPOCH, FakeClock, hello, passphrase

Say = Callable[[str, object], Any]


@pytest.fixture
def application(config: Config, clock: FakeClock) -> Iterator[Application]:
    made = Application(config, fresh_services(config, clock))
    yield made
    made.services.close()


@pytest.fixture
def say(application: Application) -> Say:
    """One connection of an approved agent: event and payload in, acknowledgement out."""
    handlers = application.sockets.server.handlers[NAMESPACE]
    handlers["connect"]("sid", {"REMOTE_ADDR": "192.0.2.1"})
    services = application.services
    handlers["handshake"]("sid", codec.encode_handshake(hello(passphrase(services))), True)
    services.registry.approve("probe-1", "test")
    return lambda event, data: handlers[event]("sid", data, True)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"rev": 99}, "E_TARGET"), ({"rtt": [1, 2, 3]}, "E_BATCH"), ({"seq": 7}, "E_SEQ_GAP")],
)
def test_rounds_at_fault_keep_nothing_waiting(say: Say, change: dict[str, object], code: str) -> None:
    """Half an hour of rounds that a server no longer takes must be gone through at once, not one in thirty seconds."""
    one = {"seq": 1, "t": 1_800_000_000_000, "rev": 1, "rtt": []} | change

    answer = say("monitoring_data", {"v": 1, "epoch": EPOCH, "rounds": [one]})

    assert (answer["ok"], answer["code"], answer["retry_after_s"]) == (False, code, 0)


def test_an_agent_in_the_wrong_state_waits(application: Application, say: Say) -> None:
    """Asking again at once would not change what somebody decided."""
    application.services.registry.hold("probe-1", "test")

    answer = say("monitoring_data", {})

    assert (answer["code"], answer["retry_after_s"]) == ("E_STATE", 30)
