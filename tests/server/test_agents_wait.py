"""`pingmon agents wait`, and when an agent was last heard of: on real databases, and beside a server that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pingmon.adapters.jobs import Jobs
from pingmon.cli.agents_rows import ago, rows_of
from pingmon.cli.agents_wait import Watch
from pingmon.services.bundle import Services
from pingmon.services.compaction import Compaction
from pingmon.services.errors import NotFound
from pingmon.services.views import AgentView
from pingmon_agent.wire.contract import State
from tests.support.processes import Server, clean_environment, running_agent, running_server, wait_for

from .conftest import Approve, FakeClock, hello, passphrase, report

Deliver = Callable[..., None]


@pytest.fixture(autouse=True)
def something_to_ping(request: pytest.FixtureRequest) -> None:
    if "committing" in request.fixturenames:
        request.getfixturevalue("committing").registry.add_target("gw", "192.0.2.254", "test")


@pytest.fixture
def deliver(committing: Services) -> Deliver:
    """Have a round committed that started `ago_s` ago; `off_s`: by how much the agent's clock is ahead."""
    told: dict[int, int] = {}

    def send(view: AgentView, ago_s: float = 0.0, off_s: float = 0.0, *, sent: bool = True) -> None:
        seq = told[view.no] = told.get(view.no, 0) + 1
        words = report(committing, view, seq, [1] * len(committing.registry.snapshot.sets[view.no].target_ids))
        now = committing.clock.wall_ms()
        rounds = tuple(replace(r, started_ms=now + round((off_s - ago_s) * 1000)) for r in words.rounds)
        said = replace(words, rounds=rounds, sent_ms=now + round(off_s * 1000) if sent else None)
        assert committing.ingest.submit(view.no, said)["ok"]

    return send


def test_a_round_from_now_on_ends_the_wait(
    committing: Services, approve: Approve, deliver: Deliver, clock: FakeClock
) -> None:
    """Not one that is there already, nor one that was measured before and comes only now."""
    view = approve()
    deliver(view)
    clock.advance(5)
    watch = Watch(committing, ["probe-1"])
    nothing = {view.no: "probe-1 has delivered no round that was measured since"}
    assert watch.look() == nothing

    clock.advance(5)
    deliver(view, ago_s=8)
    assert watch.look() == nothing

    deliver(view, ago_s=1)
    assert watch.look() == {}


def test_a_clock_that_is_off_does_not_end_it_early(
    committing: Services, approve: Approve, deliver: Deliver, clock: FakeClock
) -> None:
    """An agent half a minute ahead: its old rounds look new. One as far behind: its new rounds look old."""
    ahead, behind = approve("ahead"), approve("behind", "192.0.2.2")
    watch = Watch(committing, [])
    clock.advance(2)
    deliver(ahead, ago_s=10, off_s=30)
    deliver(behind, ago_s=10, off_s=-30)
    assert set(watch.look()) == {ahead.no, behind.no}

    clock.advance(2)
    deliver(ahead, ago_s=1, off_s=30)
    deliver(behind, ago_s=1, off_s=-30)
    assert watch.look() == {}


def test_an_agent_that_never_says_its_time_ends_it_a_little_later(
    committing: Services, approve: Approve, deliver: Deliver, clock: FakeClock
) -> None:
    """A legacy agent whose clock is a minute behind: believed once its rounds cannot be older than the wait."""
    view = approve()
    watch = Watch(committing, ["probe-1"])
    for _ in range(4):
        clock.advance(4)
        deliver(view, off_s=-60, sent=False)
        last = watch.look()
    assert last == {}


def test_what_such_an_agent_catches_up_with_does_not_end_it(
    committing: Services, approve: Approve, deliver: Deliver, clock: FakeClock
) -> None:
    """Rounds of an outage that come long after the wait began were measured before it all the same."""
    view = approve()
    for _ in range(4):
        clock.advance(4)
        deliver(view, off_s=-60, sent=False)
    clock.advance(100)
    watch = Watch(committing, ["probe-1"])
    clock.advance(20)

    deliver(view, ago_s=90, off_s=-60, sent=False)

    assert list(watch.look()) == [view.no]


@pytest.mark.parametrize("version", ["2.0", "1.0"])
def test_the_version_is_that_of_the_last_handshake(
    committing: Services, approve: Approve, deliver: Deliver, version: str
) -> None:
    """As soon as the server has saved it, which it does every few seconds, and without any decision."""
    view = approve()
    watch = Watch(committing, ["probe-1"], version)
    deliver(view)
    before = watch.look()

    committing.registry.touch_version(view.no, "2.0")
    committing.registry.flush_versions()

    assert before == ({view.no: "probe-1 runs 1.0, not 2.0"} if version == "2.0" else {})
    assert watch.look() == ({} if version == "2.0" else {view.no: "probe-1 runs 2.0, not 1.0"})


@pytest.mark.slow
def test_a_server_saves_versions_every_few_seconds(committing: Services, approve: Approve) -> None:
    """By the clock, not with the minutely bookkeeping: a play waits for it."""
    view, jobs = approve(), Jobs(committing)
    jobs.start()
    try:
        committing.registry.touch_version(view.no, "2.0")

        def saved() -> bool:
            with committing.directory.reading() as tx:
                return tx.versions() == {view.no: "2.0"}

        wait_for(saved, "the version to be saved", deadline_s=15)
    finally:
        jobs.stop()


def test_states_are_told(committing: Services, approve: Approve, deliver: Deliver) -> None:
    """Whatever keeps an agent back is in the sentence; what is put right meanwhile no longer is."""
    committing.enrolment.greet(hello(passphrase(committing), "waits"), "192.0.2.1")
    views = [approve(name, f"192.0.2.{number}") for number, name in enumerate(("held", "gone", "bad"), 10)]
    watch = Watch(committing, ["waits", "held", "gone", "bad"])
    for view in views:
        deliver(view)
    committing.registry.hold("held", "test")
    committing.registry.delete("gone", "test")
    committing.registry.reject("bad", "test")

    assert list(watch.look().values()) == [
        "waits is not approved yet",
        "held is on hold (operator)",
        "gone was deleted",
        "bad is blacklisted",
    ]
    committing.registry.release("held", "test")
    assert "held" not in " ".join(watch.look().values())
    assert [row["hostname"] for row in watch.rows(watch.look())] == ["waits", "held", "bad"]


def test_all_that_are_approved_when_it_begins(committing: Services, approve: Approve) -> None:
    """Without names; who is approved later is not waited for, and nobody is nobody."""
    assert Watch(committing, []).look() == {}
    first = approve()
    watch = Watch(committing, [])
    approve("late", "192.0.2.2")

    assert list(watch.look()) == [first.no]
    with pytest.raises(NotFound):
        Watch(committing, ["nobody"])


def test_lists_say_when_an_agent_was_last_heard_of(
    committing: Services, approve: Approve, deliver: Deliver, clock: FakeClock
) -> None:
    """Its newest round, by the server's time; also when that is compacted, and nothing where there is none."""
    ahead, never = approve("ahead"), approve("never", "192.0.2.2")
    deliver(ahead, off_s=30)
    clock.advance(90)

    rows = {row["hostname"]: row for row in rows_of(committing, [ahead, never])}
    assert (rows["ahead"]["last_round_age_s"], rows["ahead"]["last_round_ago"]) == (90, "90 s ago")
    assert (rows["ahead"]["last_round"], rows["ahead"]["clock_offset_s"]) == (clock.now_ms / 1000 - 90, 30)
    assert (rows["never"]["last_round"], rows["never"]["last_round_ago"], rows["never"]["clock_offset_s"]) == (
        None,
    ) * 3

    clock.advance(3 * 3600)
    Compaction(committing.rounds, committing.ingest, clock).run()
    wait_for(lambda: not committing.rounds.compactable(clock.now_ms), "the round to be compacted")
    [row] = rows_of(committing, [ahead])
    assert (row["last_round_age_s"], row["last_round_ago"]) == (90 + 3 * 3600, "3 h ago")


@pytest.mark.parametrize(
    ("age_s", "words"),
    [(None, None), (0.4, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (172_800, "2 d ago")],
)
def test_ages_have_one_unit(age_s: float | None, words: str | None) -> None:
    """Short enough for a table."""
    assert ago(age_s) == words


def test_who_has_nothing_to_measure_is_not_waited_for(committing: Services, approve: Approve) -> None:
    """A first agent before there are targets: it sends no rounds. It is named; with targets it is waited for."""
    committing.registry.remove_target("gw", "test")
    view = approve()
    watch = Watch(committing, [])
    assert (watch.look(), watch.idle()) == ({}, ["probe-1"])

    committing.registry.add_target("gw", "192.0.2.254", "test")
    assert (list(watch.look()), watch.idle()) == ([view.no], [])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "server") as running:
        running.admin("targets", "add", "lo", "127.0.0.1")
        yield running


def wait(server: Server, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    done = server.cli("agents", "wait", *words, "--output", "json", check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.e2e
def test_beside_a_server_that_runs(server: Server, tmp_path: Path) -> None:
    """A real agent is waited for while it is approved; a stopped one is named, with a table for people."""
    with running_agent(server, tmp_path / "agent", "probe-1") as agent:
        wait_for(lambda: server.agent_state("probe-1"), "the agent to ask")
        command = [sys.executable, "-m", "pingmon", "agents", "wait", "probe-1", "--config", str(server.config)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=clean_environment())  # fmt: skip
        time.sleep(2)
        assert waiting.poll() is None
        agent.approve()
        said, complained = waiting.communicate(timeout=60)
        assert (waiting.returncode, complained) == (0, "")
        head, row = said.splitlines()
        assert head.split() == ["HOSTNAME", "STATE", "VERSION", "LAST", "ROUND", "MISSING"]
        assert row.split()[:2] == ["probe-1", "approved"]

        code, rows, _ = wait(server)
        assert (code, rows[0]["missing"], rows[0]["last_round_age_s"] < 5) == (0, None, True)
        version = str(rows[0]["version"])
        assert wait(server, "probe-1", "--version", version)[0] == 0
        code, rows, complained = wait(server, "--version", "9.9", "--timeout", "2")
        assert (code, complained) == (1, f"pingmon: after 2 s: probe-1 runs {version}, not 9.9\n")
        agent.stop()
    code, rows, complained = wait(server, "probe-1", "--timeout", "1")
    sentence = "probe-1 has delivered no round that was measured since"
    assert (code, complained, rows[0]["missing"]) == (1, f"pingmon: after 1 s: {sentence}\n", sentence)
    assert server.cli("agents", "wait", "nobody", check=False).returncode == 1


def test_nobody_is_kept_from_writing(committing: Services, approve: Approve) -> None:
    """Between two looks the databases are free: decisions and commits go on."""
    view = approve()
    watch = Watch(committing, [])
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            committing.registry.hold(view.id, "test")
            committing.registry.release(view.id, "test")
    finally:
        done.set()
        thread.join(10)
    assert committing.registry.agent(view.id).state is State.APPROVED
