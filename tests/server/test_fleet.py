"""A fleet that is approved before it comes: what a play says of each agent holds, at once and for a thousand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pingmon.services.bundle import Services
from pingmon.services.enrolment import Greeting
from pingmon.services.fleet import Order, Outcome
from pingmon_agent.wire.contract import State
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.seal import fingerprint

from .conftest import Open, hello
from .test_cli import config_file, pingmon

__all__ = ["config_file"]  # a fixture


def counted(services: Services, table: str) -> int:
    with services.directory.engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def key(number: int) -> str:
    return b64u(number.to_bytes(32, "big"))


def order(number: int, **changes: Any) -> Order:
    return replace(Order(f"host-{number}", f"10.0.{number // 250}.{number % 250 + 1}", key(number)), **changes)


def settle(services: Services, *orders: Order) -> list[Outcome]:
    return services.registry.preapprove_all(orders, "test")


def one(services: Services, **changes: Any) -> Outcome:
    [outcome] = settle(services, order(1, **changes))
    return outcome


def moved_to(services: Services, claimed: str, observed: str) -> None:
    """The agent comes, and from there."""
    view = services.registry.agent("host-1")
    services.enrolment.arrive(Greeting(view.no, hello("unused", "host-1", claimed), "inst"), observed)


@pytest.mark.slow
def test_a_thousand_agents_cost_seconds_and_few_sets(services: Services) -> None:
    """One decision for hundreds: no agent gets a new set of targets for each of the others."""
    services.registry.put_targets([(f"t{n}", f"10.9.0.{n}") for n in range(20)], "test")
    began = time.monotonic()

    outcomes = settle(services, *(order(n) for n in range(1000)))

    took = time.monotonic() - began
    assert all(
        o.changed and o.error is None and o.view is not None and o.view.state is State.APPROVED for o in outcomes
    )
    assert counted(services, "target_sets") <= 2 * 1000
    assert len(services.registry.snapshot.sets[outcomes[0].view.no].target_ids) == 20 + 999  # type: ignore[union-attr]
    assert took < 10


def test_the_same_again_changes_nothing(services: Services) -> None:
    """No transaction, no line in the audit, the same ids."""
    first = settle(services, order(1), order(2))
    before = services.registry.snapshot.revision, counted(services, "audit")

    again = settle(services, order(1), order(2))

    assert [o.changed for o in first + again] == [True, True, False, False]
    assert [o.view.id for o in first if o.view] == [o.view.id for o in again if o.view]
    services.registry.refresh()
    assert (services.registry.snapshot.revision, counted(services, "audit")) == before


def test_what_is_refused_keeps_no_other_back(services: Services) -> None:
    """Each refusal is said where it belongs; all others are approved."""
    settle(services, order(1), order(2))
    services.registry.reject("host-2", "test")

    outcomes = settle(
        services,
        order(1, public_key=key(11)),
        order(2),
        order(3),
        order(3, public_key=key(33)),
        order(4, ip_address="10.0.0.300"),
        order(5, hostname="other", public_key=key(1)),
        order(6),
    )

    assert [o.changed for o in outcomes] == [False, False, True, False, False, False, True]
    told = [o.error for o in outcomes]
    beginnings = [
        "another agent called host-1 is approved already (",
        "host-2 was rejected (",
        None,
        "host-3 or its key stands in the list before",
        "ip_address ",
        "this key is that of host-1 (",
        None,
    ]
    assert [text and text[: len(begin or "")] for text, begin in zip(told, beginnings, strict=True)] == beginnings
    assert services.registry.agent("host-6").state is State.APPROVED


def test_another_address_is_applied(services: Services) -> None:
    """The agent, where it may come from, and the target that the others ping follow what is said."""
    settle(services, order(1, allowed=("10.5.0.0/16",)), order(2))
    before = services.registry.snapshot.sets[services.registry.agent("host-2").no].revision

    outcome = one(services, ip_address="10.0.0.99")

    view = services.registry.agent("host-1")
    assert (outcome.changed, view.ip_address, view.allowed) == (True, "10.0.0.99", ("10.0.0.99", "10.5.0.0/16"))
    assert services.registry.target("host-1").address == "10.0.0.99"
    assert services.registry.snapshot.sets[services.registry.agent("host-2").no].revision == before + 1
    assert not one(services, ip_address="10.0.0.99").changed


def test_what_is_not_said_stays(services: Services) -> None:
    """Networks and the observed address are changed by who names them, and by nobody else."""
    one(services, allowed=("10.5.0.0/16",), observed_ignored=True)

    assert not one(services).changed
    assert one(services, allowed=()).changed
    view = services.registry.agent("host-1")
    assert (view.allowed, view.observed_ignored) == ((view.ip_address,), True)
    assert one(services, observed_ignored=False).changed
    assert not services.registry.agent("host-1").observed_ignored


def test_an_agent_that_moved_comes_back_where_its_new_address_is_said(services: Services) -> None:
    """On hold for its address: released by naming the address it has, and by no other."""
    one(services)
    moved_to(services, "10.0.0.77", "10.0.0.77")
    assert services.registry.agent("host-1").hold_reason == "ip_changed"

    other = [one(services, ip_address="10.0.0.78") for _ in range(2)]
    assert [o.changed for o in other] == [True, False]
    assert services.registry.agent("host-1").state is State.HOLD
    right = one(services, ip_address="10.0.0.77", allowed=())

    assert right.view is not None
    assert (right.changed, right.view.state, right.view.allowed) == (True, State.APPROVED, ("10.0.0.77",))
    assert not one(services, ip_address="10.0.0.77").changed


def test_a_hold_that_somebody_ordered_stands(services: Services) -> None:
    """A play does not undo what a person decided."""
    one(services)
    services.registry.hold("host-1", "test")

    outcome = one(services, ip_address="10.0.0.50")

    assert outcome.view is not None
    assert (outcome.view.state, outcome.view.hold_reason) == (State.HOLD, "operator")


def test_an_address_that_the_server_sees_counts_too(services: Services) -> None:
    """Behind address translation: as long as nobody names what the server sees, the agent stays on hold."""
    one(services)
    moved_to(services, "10.0.0.2", "10.7.7.7")
    assert services.registry.agent("host-1").state is State.HOLD

    assert one(services).view.state is State.HOLD  # type: ignore[union-attr]
    assert one(services, observed_ignored=True).view.state is State.APPROVED  # type: ignore[union-attr]


def test_a_new_key_takes_the_place_of_the_old(services: Services) -> None:
    """With `replace` a host that was set up anew keeps its id; a key that waited for approval is used up by it."""
    first = one(services)

    outcome = one(services, public_key=key(100), replace=True)

    assert outcome.changed
    assert outcome.view is not None
    assert first.view is not None
    assert (outcome.view.id, outcome.view.public_key) == (first.view.id, (100).to_bytes(32, "big"))


def test_as_many_as_the_limits_allow(opened: Open) -> None:
    """The first that fit, in their order; the others are told why; who is in already is looked after all the same."""
    with opened(foreign_agents=3, foreign_packets_per_s=100.0) as services:
        services.registry.add_target("dns", "8.8.8.8", "test")
        settle(services, order(7))

        outcomes = settle(services, *(order(n) for n in range(6)), order(7, ip_address="10.0.0.200"))

        assert [o.changed for o in outcomes] == [True, True, False, False, False, False, True]
        assert "4 agents > 3 (targets.foreign_agents" in (outcomes[2].error or "")
        assert (outcomes[5].error or "").startswith("host-5 is left out, too: dns (8.8.8.8) is outside")
        assert services.registry.agent("host-7").ip_address == "10.0.0.200"


def item(number: int, **more: object) -> dict[str, object]:
    """As `pingmon-agent identity --json` has it."""
    wanted = order(number)
    words = {"hostname": wanted.hostname, "ip_address": wanted.ip_address, "public_key": wanted.public_key}
    return words | {"key_fpr": fingerprint(number.to_bytes(32, "big"))} | more


def preapprove(config_file: Path, items: object) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = pingmon(config_file, "agents", "preapprove", "--from", "-", stdin=json.dumps(items))
    return done, json.loads(done.stdout) if done.stdout else {}


@pytest.mark.e2e
def test_a_play_approves_what_agents_say_of_themselves(config_file: Path, services: Services, tmp_path: Path) -> None:
    """The output of a real `pingmon-agent identity --json` goes in as it is; the answer is what a play needs."""
    agent = tmp_path / "agent.toml"
    agent.write_text(
        f'[server]\nurl = "wss://127.0.0.1:1"\nca_file = "{agent}"\n'
        f'[agent]\nhostname = "probe-1"\nip_address = "192.0.2.1"\nstate_dir = "{tmp_path}/agent"\n'
    )
    command = [sys.executable, "-m", "pingmon_agent", "identity", "--json", "--config", str(agent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    done, first = preapprove(config_file, [json.loads(said)])
    _, again = preapprove(config_file, [json.loads(said)])

    services.registry.refresh()
    view = services.registry.agent("probe-1")
    told = {"hostname": "probe-1", "id": view.id, "state": "approved"}
    assert (done.returncode, done.stderr) == (0, "")
    assert first == {"server_identity": services.enrolment.pin, "agents": [told | {"changed": True}]}
    assert again == {"server_identity": services.enrolment.pin, "agents": [told | {"changed": False}]}


@pytest.mark.e2e
def test_each_mistake_is_told_beside_its_agent(config_file: Path) -> None:
    """In the order of the list, with exit code 1, and the others are approved."""
    items = [
        item(1, key_fpr="x"),
        item(2, fingerprint="x"),
        item(3, allowed="10.0.0.0/8"),
        item(4, observed="maybe"),
        item(5, replace="yes"),
        {"hostname": "host-6", "ip_address": ""},
        "host-7",
        item(8, public_key="short"),
        item(9, allowed=["10.0.0.0/8"], observed="ignore", replace=False, something_of_a_later_version=1),
    ]

    done, told = preapprove(config_file, items)

    assert done.returncode == 1
    assert done.stderr == 'pingmon: 8 of 9 agents were refused: each says why under "error"\n'
    errors = [agent.get("error", "") for agent in told["agents"]]
    assert [error.partition(";")[0].partition(":")[0] for error in errors[:7]] == [
        "key_fpr is not that of public_key",
        "fingerprint is not that of public_key",
        "allowed is no list of addresses and networks",
        "observed is 'maybe'",
        "replace is 'yes'",
        "ip_address is missing or no text",
        "this is no JSON object",
    ]
    assert errors[7].endswith("`pingmon-agent identity --json` prints what belongs here")
    assert told["agents"][8]["state"] == "approved"
    assert told["agents"][0] == {
        "hostname": "host-1", "id": None, "state": None, "changed": False, "error": errors[0]
    }  # fmt: skip


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--from", "/nonexistent"), 1, "/nonexistent cannot be read (No such file or directory); name a file with a "),
        (("--from", "-"), 1, "- is no JSON list; gather what `pingmon-agent identity --json` prints on each host"),
        (("--from", "-", "--ip", "192.0.2.1"), 2, "--from takes all of each agent from the list: leave out the other"),
        (("--hostname", "x"), 2, "give --hostname, --ip and --public-key, or a list with --from"),
    ],
)
def test_lists_that_are_none(config_file: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    """One sentence, and nothing is printed that a play could take for an answer."""
    done = pingmon(config_file, "agents", "preapprove", *words, stdin="{}")

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"pingmon: {sentence}")
