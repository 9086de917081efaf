"""Cases 44 to 47: what an approved agent may get wrong, or lie about, in its reports (all at once: test_data_twice).

Our reports are columns, not rows, so a sample names no target and no agent at all: docs/wire.md. Rows are what legacy
agents send, and where a case is about rows they are who says it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from pingmon.store.rounds import FLAG_CLOCK, FLAG_LATE
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake

from .victim import Victim
from .wire import Client, sample

pytestmark = pytest.mark.e2e
Json = dict[str, Any]
EPOCH = "00112233445566aa"
MINUTE_MS = 60_000


@pytest.fixture(scope="module", autouse=True)
def _bystander(victim: Victim) -> Iterator[None]:
    """Beside all of this: nothing lost, nothing doubled, no wait."""
    with victim.bystander() as seen:
        yield
    assert seen.p99_ms < 250


@dataclass
class Reporter:
    """A current agent that says what the test says; `revision` is that of its own target set of one column."""

    client: Client
    revision: int
    agent_id: str

    def row(self, seq: int, /, **changes: object) -> Json:
        """A round, good unless it is changed."""
        return {"seq": seq, "t": time.time_ns() // 1_000_000, "rev": self.revision, "rtt": [seq * 1000]} | changes

    def say(self, *rows: object, **changes: object) -> Json:
        """What a report of these rounds is answered."""
        return self.client.ask("monitoring_data", {"v": 1, "epoch": EPOCH, "rounds": list(rows)} | changes)


def reporter(victim: Victim, hostname: str) -> Reporter:
    """Approved a moment ago; close its client."""
    secret = victim.server.legacy_passphrase(hostname)
    hello = Handshake(passphrase=secret, hostname=hostname, ip_address="192.0.2.5", version="1", epoch=EPOCH)
    client = victim.client().opened()
    assert client.ask("handshake", codec.encode_handshake(hello))["state"] == "pending"
    victim.server.admin("agents", "approve", hostname)
    told = client.event("handshake")
    return Reporter(client, client.event("update_targets")["revision"], told["agent_id"])


def stored(victim: Victim, hostname: str) -> list[Json]:
    """Rounds of an agent that were committed, by their numbers."""
    data = victim.server.directory / "data"
    with closing(sqlite3.connect(f"file:{data / 'samples.db'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        database.execute("ATTACH ? AS directory", (f"file:{data / 'pingmon.db'}?mode=ro",))
        rows = database.execute(
            "SELECT rounds.* FROM rounds JOIN directory.agents ON no = agent_no WHERE hostname = ? ORDER BY seq",
            (hostname,),
        )
        return [dict(row) for row in rows]


def seqs(victim: Victim, hostname: str) -> list[int]:
    return [row["seq"] for row in stored(victim, hostname)]


def test_case_44_who_it_is_decides_the_connection_alone(victim: Victim) -> None:
    """A report that says it is another agent's: the fields are ignored, and the rounds are its own."""
    honest, liar = reporter(victim, "case-44-honest"), reporter(victim, "case-44-liar")
    with honest.client, liar.client:
        lie = {"agent_id": honest.agent_id, "agent": "case-44-honest", "hostname": "case-44-honest", "agent_no": 1}
        assert liar.say(liar.row(1, **lie), **lie) == {"ok": True, "upto": 1, "dup": 0}
        assert honest.say(honest.row(1))["dup"] == 0

    assert [seqs(victim, name) for name in ("case-44-honest", "case-44-liar")] == [[1], [1]]


def test_case_44_an_unknown_set_costs_its_round_alone(victim: Victim) -> None:
    """A column is a target by the set's revision: one this agent never had, or another's, is E_TARGET, one column too
    many E_BATCH. The round is given up, declared, and the rest is stored: `upto` advances.
    """
    other = reporter(victim, "case-44-other")
    victim.server.admin("targets", "add", "there", "127.0.0.2")
    other_revision = other.client.event("update_targets")["revision"]
    victim.server.admin("targets", "remove", "there")
    own = reporter(victim, "case-44")
    with other.client, own.client:
        for wrong, code in (
            (own.row(2, rev=other_revision), "E_TARGET"),
            (own.row(2, rev=2**40), "E_TARGET"),
            (own.row(2, rtt=[1, 2]), "E_BATCH"),
            (own.row(2, rtt=[]), "E_BATCH"),
        ):
            answer = own.say(own.row(1), wrong)
            assert (answer["code"], answer["retry_after_s"]) == (code, 0), wrong
        assert seqs(victim, "case-44") == []
        assert own.say(own.row(1))["upto"] == 1
        assert own.say(own.row(3), gap=[2, 2, "E_TARGET"]) == {"ok": True, "upto": 3, "dup": 0}

    assert seqs(victim, "case-44") == [1, 3]


def test_case_44_an_unknown_target_of_a_legacy_agent_costs_its_sample_alone(victim: Victim) -> None:
    """Rows name their targets: E_TARGET for that sample, and the others of the message are stored."""
    with victim.agent("case-44-legacy") as client:
        wrong = [sample(1.0) | {"target": name} for name in ("1000000", "198.51.100.9", "", "there")]
        answer = client.ask("monitoring_data", [sample(1.0), *wrong, sample(2.0, 1 + time.time_ns() // 1_000_000)])

    assert answer["ok"] is True
    assert sorted(answer["rejected"]) == [[name, "E_TARGET"] for name in ("", "1000000", "198.51.100.9", "there")]
    assert seqs(victim, "case-44-legacy") == [1, 2]


HUGE = 2**63
BAD_ROUNDS: list[tuple[Json, str]] = [
    *(({"rtt": [value]}, "E_MALFORMED") for value in (-8, -99, HUGE, 60_000_001, 1.5, "1", True, None, [1], {"a": 1})),
    *(({"rtt": value}, "E_MALFORMED") for value in (None, 1, "1", {"1": 1})),
    *(({"rtt32": value}, "E_MALFORMED") for value in ("AAA=", "AAAAgA==", 5, ["AAAA"])),
    *(({"seq": value}, "E_MALFORMED") for value in (0, -1, HUGE, 1.0, "1", True, None)),
    *(({"rev": value}, "E_MALFORMED") for value in (-1, HUGE, "1", None)),
    *(({"t": value}, "E_MALFORMED") for value in (-1, HUGE, 1.5, "now", True, None)),
]


def test_case_45_no_number_that_is_none(victim: Victim) -> None:
    """Out of range, of another type, or too many: a code, nothing stored, and the connection goes on. 0 us is a
    measurement, and status 99 would be -99, an outcome that there is not.
    """
    own = reporter(victim, "case-45")
    with own.client:
        for change, code in BAD_ROUNDS:
            answer = patiently(own, own.row(1, **change))
            assert (answer["ok"], answer["code"]) == (False, code), change
        many = [own.row(1 + i) for i in range(65)]
        twice = [own.row(1), own.row(1)]
        for rows, code in (([], "E_BATCH"), (many, "E_BATCH"), (twice, "E_MALFORMED"), ([7], "E_MALFORMED")):
            assert patiently(own, *rows)["code"] == code
        assert patiently(own, own.row(1, rtt32="A" * 64_016))["code"] == "E_BATCH"
        assert seqs(victim, "case-45") == []
        assert patiently(own, own.row(1, rtt=[0]), own.row(2, rtt=[-7]), own.row(3, rtt=[60_000_000]))["upto"] == 3


def patiently(own: Reporter, *rows: object) -> Json:
    """Within the five messages a second that an agent has."""
    while (answer := own.say(*rows)).get("code") == "E_RATE":
        time.sleep(0.5)
    return answer


def test_case_46_a_clock_that_is_wrong_costs_no_round(victim: Victim) -> None:
    """A round's time is no reason to lose it: E_TIME is for legacy agents (below). Minutes off it is late, and kept
    under its own time; further off it is marked, and kept under ours, so that it can neither live for ever nor end at
    once. All of it is counted.
    """
    now = time.time_ns() // 1_000_000
    times = [now, now + 10 * MINUTE_MS, now - 40 * MINUTE_MS, 0, 4_291_747_200_000, now // 1000, now * 1000]
    late = victim.metric("pingmon_server_rounds_late_total")
    own = reporter(victim, "case-46")
    with own.client:
        assert own.say(*(own.row(1 + i, t=at) for i, at in enumerate(times)))["upto"] == len(times)

    rows = stored(victim, "case-46")
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [bool(row["flags"] & FLAG_CLOCK) for row in rows] == [False, True, False, True, True, True, True]
    assert rows[2]["started_ms"] == times[2]
    assert rows[2]["flags"] & FLAG_LATE
    assert all(abs(row["started_ms"] - row["received_ms"]) < 1000 for row in rows if row["flags"] & FLAG_CLOCK)
    assert victim.metric("pingmon_server_rounds_late_total") > late


def test_case_46_a_time_that_is_none(victim: Victim) -> None:
    """Rows of legacy agents: milliseconds for seconds, 0, below it, no number: E_TIME, counted, nothing stored."""
    with victim.agent("case-46-legacy") as client:
        before = rejected(victim, "E_TIME")
        wrong = [time.time() * 1000, 0, -5, "now", None, 1e300]
        for at in wrong:
            assert client.ask("monitoring_data", [sample(1.0) | {"timestamp": at}])["code"] == "E_TIME", at
        assert rejected(victim, "E_TIME") == before + len(wrong)
        assert seqs(victim, "case-46-legacy") == []
        assert client.ask("monitoring_data", [sample(1.0)])["ok"] is True


def rejected(victim: Victim, code: str) -> float:
    return victim.metric(f'pingmon_server_results_rejected_total{{reason="{code}"}}')


def test_case_47_out_of_order_overlapping_and_holes(victim: Victim) -> None:
    """What is there is `dup`, what is missing is E_SEQ_GAP with the number to go on from; each round is there once."""
    own = reporter(victim, "case-47")
    with own.client:
        rows = {seq: own.row(seq) for seq in range(1, 12)}

        def say(first: int, last: int, **more: object) -> Json:
            return own.say(*(rows[seq] for seq in range(first, last + 1)), **more)

        hole = say(3, 5)
        assert (hole["code"], hole["expected"]) == ("E_SEQ_GAP", 1)
        assert say(1, 4) == {"ok": True, "upto": 4, "dup": 0}
        assert [say(1, 4) for _ in range(3)] == [{"ok": True, "upto": 4, "dup": 4}] * 3
        assert say(3, 6) == {"ok": True, "upto": 6, "dup": 2}
        assert say(2, 3) == {"ok": True, "upto": 6, "dup": 2}
        torn = own.say(rows[7], rows[9])
        assert (torn["code"], torn["expected"]) == ("E_SEQ_GAP", 7)
        short = say(10, 11, gap=[8, 9, "expired"])
        assert (short["code"], short["expected"]) == ("E_SEQ_GAP", 7), "the gap leaves out 7"
        assert say(10, 11, gap=[7, 9, "expired"]) == {"ok": True, "upto": 11, "dup": 0}
        assert say(7, 8) == {"ok": True, "upto": 11, "dup": 2}, "given up is given up"

    assert seqs(victim, "case-47") == [1, 2, 3, 4, 5, 6, 10, 11]
