"""Abuse cases 21 to 40 and 43 of enrolment, by their numbers: against the real server where that can run, against its
services alone where a clock has to be turned or hundreds of agents are needed."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import ssl
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pingmon.cli.pki_authority import issue_leaf
from pingmon.services.approval import Expected
from pingmon.services.bundle import Services, open_services
from pingmon.services.challenge import Visit
from pingmon.services.errors import Conflict
from pingmon.services.passphrases import PepperError
from pingmon_agent.wire.contract import EVENT_DATA, EVENT_HANDSHAKE, ErrorCode, State, WireError
from pingmon_agent.wire.framing import b64u
from pingmon_agent.wire.keyfile import identity_file
from pingmon_agent.wire.seal import Identity
from tests.server.conftest import FakeClock
from tests.support.applicant import Applicant, Caller
from tests.support.middle import in_the_middle
from tests.support.processes import Agent, Server, clean_environment, make_pki, running_agent, wait_for, write_agent

from .conftest import LEAF, Call, applicant, back, challenged, enrolled, secret_of

pytestmark = pytest.mark.e2e


def code_of(what: Any, *args: Any, **more: Any) -> ErrorCode:
    """The code of a refusal that must come."""
    with pytest.raises(WireError) as caught:
        what(*args, **more)
    return caught.value.code


def agents(server: Server) -> list[dict[str, Any]]:
    """All agents as the running server sees them."""
    return list(server.session().json("/api/v1/agents")["agents"])


def agent_of(server: Server, hostname: str) -> dict[str, Any]:
    """The only agent of that name."""
    (found,) = (row for row in agents(server) if row["hostname"] == hostname)
    return found


def uses(server: Server, secret: str) -> int:
    """How often a passphrase was used."""
    rows = json.loads(server.admin("passphrases", "list", "--output", "json"))
    return int(next(row["uses"] for row in rows if row["id"] == secret.split("-")[1]))


def log_of(server: Server) -> str:
    return (server.directory / "server.log").read_text()


def audit(server: Server, action: str) -> list[str]:
    """Details of all audit lines of this kind."""
    with sqlite3.connect(f"file:{server.directory / 'data' / 'pingmon.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT subject || ' ' || detail FROM audit WHERE action = ?", (action,)).fetchall()
    database.close()
    return [str(row[0]) for row in rows]


# -- 21 to 23: one challenge, one answer --


def test_case_21_an_answer_without_its_challenge(server: Server, call: Call) -> None:
    """M2 without M1, twice, and on another connection: E_NONCE."""
    secret = server.passphrase()
    caller, other = call("case-21"), call("case-21")
    payload = caller.who.sealed(caller.challenge(), secret)

    assert other.ask(EVENT_HANDSHAKE, payload)["code"] == "E_NONCE"
    assert caller.ask(EVENT_HANDSHAKE, payload)["state"] == "pending"
    assert caller.ask(EVENT_HANDSHAKE, payload)["code"] == "E_NONCE"
    caller.challenge()
    other.challenge()
    assert other.ask(EVENT_HANDSHAKE, payload)["code"] == "E_SEAL", "the challenge of another connection"


@pytest.mark.parametrize(("waited_s", "good"), [(29, True), (31, False)])
def test_case_21_an_answer_after_31_seconds(services: Services, clock: FakeClock, waited_s: int, good: bool) -> None:
    """A challenge is good for 30 s and no longer."""
    who, visit = applicant(services), Visit("127.0.0.1")
    payload = who.sealed(challenged(services, who, visit), secret_of(services))
    clock.advance(waited_s)
    try:
        services.enrolment.hear(visit, payload)
        code = None
    except WireError as error:
        code = error.code

    assert code is (None if good else ErrorCode.NONCE)


@pytest.mark.parametrize("name", ["hostname", "ip_address", "version"])
def test_case_22_an_outer_field_altered(server: Server, call: Call, name: str) -> None:
    """What travels in the open is tied to the seal and to the signature."""
    caller, secret, altered = call("case-22"), server.passphrase(), {name: "127.0.0.9"}
    assert caller.ask(EVENT_HANDSHAKE, caller.who.sealed(caller.challenge(), secret) | altered)["code"] == "E_SEAL"
    assert caller.enrol(secret)["state"] == "pending"
    assert caller.ask(EVENT_HANDSHAKE, caller.who.login(caller.challenge()) | altered)["code"] == "E_SIGNATURE"


def test_case_22_ext_altered(server: Server, call: Call) -> None:
    """So are the agent's own facts."""
    caller, secret = call("case-22-ext"), server.passphrase()
    caller.enrol(secret)
    for make, code in ((lambda body: caller.who.sealed(body, secret), "E_SEAL"), (caller.who.login, "E_SIGNATURE")):
        payload = make(caller.challenge())
        first, _, last = payload["passphrase"].split(".")
        other = b64u(json.dumps(caller.who.ext(next=2), sort_keys=True, separators=(",", ":")).encode())
        assert caller.ask(EVENT_HANDSHAKE, payload | {"passphrase": f"{first}.{other}.{last}"})["code"] == code


def test_case_23_a_recorded_session_played_back(server: Server, call: Call) -> None:
    """Byte by byte on a new connection: nothing opens, and no row is touched."""
    secret, caller = server.passphrase("case 23", "--uses", "5"), call("case-23")
    hello = caller.who.hello()
    sealed = caller.who.sealed(caller.ask(EVENT_HANDSHAKE, hello), secret)
    assert caller.ask(EVENT_HANDSHAKE, sealed)["state"] == "pending"
    login = caller.who.login(caller.challenge())
    assert caller.ask(EVENT_HANDSHAKE, login)["state"] == "pending"
    before = agent_of(server, "case-23")
    caller.__exit__()

    replay = call("case-23")
    codes = []
    for payload in (sealed, hello, sealed, hello, login, login):
        answer = replay.ask(EVENT_HANDSHAKE, payload)
        codes.append(answer.get("code", answer["state"]))

    assert codes == ["E_NONCE", "challenge", "E_SEAL", "challenge", "E_SIGNATURE", "E_NONCE"]
    wait_for(lambda: not agent_of(server, "case-23")["connected"], "the first connection to be gone")
    assert agent_of(server, "case-23") == before | {"connected": False}
    assert uses(server, secret) == 1


# -- 24 to 29: passphrases --


def test_case_24_wrong_passphrases_have_one_answer(server: Server, call: Call) -> None:
    """Unknown id, wrong secret, truncated, too long, upper case, O for 0, wrong pin, legacy: the same text for all."""
    kind, number, secret, pin = server.passphrase().split("-")
    flipped = ("0" if secret[0] != "0" else "1") + secret[1:]
    wrong = [
        f"{kind}-zzzzzzzz-{secret}-{pin}",
        f"{kind}-{number}-{flipped}-{pin}",
        f"{kind}-{number}-{secret}-{pin}"[:-1],
        f"{kind}-{number}-{secret}-{pin}0",
        f"{kind}-{number}-{secret}-{pin}".upper(),
        f"{kind}-{number}-O{secret[1:]}-{pin}",
        f"{kind}-{number}-{secret}-{'0' * 32}",
        f"{kind}-{number}-{secret}",
        server.legacy_passphrase(),
        f"{server.legacy_passphrase().replace('pml', 'pm1')}-{pin}",
    ]
    caller = call("case-24")
    answers = [caller.enrol(text) for text in wrong]

    assert {(a["code"], a["message"]) for a in answers} == {("E_PASSPHRASE", answers[0]["message"])}
    assert not [row for row in agents(server) if row["hostname"] == "case-24"]
    assert secret not in log_of(server)


def test_case_24_unknown_and_wrong_take_the_same_time(services: Services) -> None:
    """Over 1,000 tries of each, in turn, the medians of the processor's time differ by less than 5 %."""
    kind, number, secret, pin = secret_of(services).split("-")
    texts = {"unknown": f"{kind}-zzzzzzzz-{secret}-{pin}", "wrong": f"{kind}-{number}-{'0' * 26}-{pin}"}
    spent: dict[str, list[int]] = {name: [] for name in texts}
    for _ in range(1_000):
        for name, text in texts.items():
            began = time.thread_time_ns()
            assert code_of(services.enrolment.sealed, text) is ErrorCode.PASSPHRASE
            spent[name].append(time.thread_time_ns() - began)

    unknown, wrong = (statistics.median(spent[name]) for name in ("unknown", "wrong"))
    assert abs(unknown - wrong) / wrong < 0.05, (unknown, wrong)


def test_case_25_a_right_secret_that_opens_nothing(services: Services, clock: FakeClock) -> None:
    """Expired, exhausted, revoked, wrong network: each its own code, and no use is counted."""
    expired, exhausted = secret_of(services, ttl_s=60), secret_of(services, max_uses=1)
    revoked, scoped = secret_of(services), secret_of(services, networks=["192.0.2.0/24", "2001:db8::/64"])
    enrolled(services, applicant(services, "first"), exhausted)
    services.enrolment.revoke_passphrase(revoked.split("-")[1], "test")
    clock.advance(61)
    before = {view.id: view.uses for view in services.enrolment.passphrases()}

    codes = [
        code_of(enrolled, services, applicant(services, f"case-25-{n}"), secret)
        for n, secret in enumerate((expired, exhausted, revoked, scoped))
    ]

    assert codes == [
        ErrorCode.PASSPHRASE_EXPIRED,
        ErrorCode.PASSPHRASE_EXHAUSTED,
        ErrorCode.PASSPHRASE_REVOKED,
        ErrorCode.PASSPHRASE_SCOPE,
    ]
    assert {view.id: view.uses for view in services.enrolment.passphrases()} == before
    assert enrolled(services, applicant(services, "inside"), scoped, "192.0.2.77")
    assert enrolled(services, applicant(services, "inside-6"), scoped, "2001:db8::7")


def test_case_26_a_hundred_race_for_ten_uses(services: Services) -> None:
    """Exactly ten get in, ninety are told why not."""
    secret = secret_of(services, max_uses=10)

    def ask(number: int) -> str:
        try:
            enrolled(services, applicant(services, f"race-{number}"), secret)
        except WireError as error:
            return str(error.code)
        return "in"

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(100)))

    assert (answers.count("in"), answers.count("E_PASSPHRASE_EXHAUSTED")) == (10, 90)
    assert len(services.registry.agents()) == 10
    assert services.enrolment.passphrases()[0].uses == 10


def test_case_27_the_same_agent_again(server: Server, call: Call) -> None:
    """Fifty times M2a with the same key: one row, one use."""
    secret, identity = server.passphrase("case 27", "--uses", "3"), Identity(bytes([27]) * 32)
    answers = []
    for _ in range(10):  # one connection may not say that much
        caller = call("case-27", identity=identity, inst="27" * 8)
        answers += [caller.enrol(secret) for _ in range(5)]

    assert {a["registration_id"] for a in answers} == {agent_of(server, "case-27")["id"]}
    assert uses(server, secret) == 1


def test_case_28_plain_text_in_the_default_configuration(server: Server, call: Call) -> None:
    """Refused with what to do and until when that works; the secret is not in the log."""
    secret, caller = server.passphrase(), call("case-28")
    plain = caller.who.hello() | {"passphrase": secret}
    answer = caller.ask(EVENT_HANDSHAKE, plain)

    assert answer["code"] == "E_LEGACY_DISABLED"
    assert "`pingmon passphrases create --legacy`" in answer["message"]
    assert "30 days at most" in answer["message"]
    assert secret.split("-")[2] not in log_of(server)
    respelled = "pml-" + "-".join(secret.split("-")[1:3])
    assert caller.ask(EVENT_HANDSHAKE, plain | {"passphrase": respelled})["code"] == "E_PASSPHRASE"


def test_case_28_plain_passphrases_end(services: Services, clock: FakeClock) -> None:
    """A legacy agent that was approved is refused from the end date on, and told the day; no later one can be set."""
    clear = services.enrolment.create_passphrase("x", legacy=True, max_uses=1, ttl_s=86_400, actor="test")[1]
    plain = {"passphrase": clear, "hostname": "old", "ip_address": "127.0.0.1", "version": "1"}
    greeting = services.enrolment.hear(Visit("127.0.0.1"), plain)
    assert not isinstance(greeting, dict)
    services.registry.approve("old", "test")
    clock.advance(30 * 86_400 - 1)
    assert services.enrolment.reply(greeting.agent_no, 0)["state"] == "approved"
    clock.advance(2)

    assert code_of(services.enrolment.hear, Visit("127.0.0.1"), plain) is ErrorCode.LEGACY_DISABLED
    told = services.enrolment.reply(greeting.agent_no, 0)
    assert (told["code"], "until 2027-02-14" in told["message"]) == ("E_LEGACY_DISABLED", True)
    with pytest.raises(Exception, match="30 days"):
        services.enrolment.create_passphrase("x", legacy=True, max_uses=1, ttl_s=60, actor="test", legacy_s=31 * 86_400)


def test_case_29_plain_text_under_the_name_of_a_key(server: Server, call: Call) -> None:
    """A hostname that was approved with a key comes back by its key alone, deleted or not."""
    secret, legacy = server.passphrase(), server.legacy_passphrase("legacy", "--uses", "3")
    keyed, stranger = call("case-29"), call("case-29")
    keyed.enrol(secret)
    plain = stranger.who.hello() | {"passphrase": legacy}
    assert stranger.ask(EVENT_HANDSHAKE, plain)["state"] == "pending", "who only asked has no right to the name yet"
    server.admin(
        "agents", "reject", next(r["id"] for r in agents(server) if r["hostname"] == "case-29" and r["legacy"])
    )
    server.admin("agents", "approve", agent_of_key(server, keyed.who)["id"])
    keyed.pushed("approved")

    stranger = call("case-29")  # who was rejected is hung up on
    assert stranger.ask(EVENT_HANDSHAKE, plain)["code"] == "E_KEY_REQUIRED"
    server.admin("agents", "delete", agent_of_key(server, keyed.who)["id"])
    time.sleep(1.2)  # the server reads the directory once a second
    assert stranger.ask(EVENT_HANDSHAKE, plain)["code"] == "E_KEY_REQUIRED"
    assert legacy.split("-")[2] not in log_of(server)


def agent_of_key(server: Server, who: Applicant) -> dict[str, Any]:
    """The agent with this key."""
    (found,) = (row for row in agents(server) if row["key_fpr"] == who.identity.fingerprint)
    return found


# -- 31 to 33: who proves what --


def test_case_31_somebody_in_the_middle_with_our_ca(server: Server, pin: str, tmp_path: Path) -> None:
    """He shows a certificate of our CA and relays the real challenge: E_CHANNEL, and a line that names the agent."""
    make_pki(tmp_path)
    for name in ("ca.pem", "ca.key"):
        shutil.copy(server.directory / "ca" / name, tmp_path / "ca" / name)
    certificate, key = tmp_path / "his.pem", tmp_path / "his.key"
    issue_leaf(tmp_path / "ca", "localhost", ["ip:127.0.0.1"], out_cert=certificate, out_key=key)
    secret = server.passphrase()
    with in_the_middle(server, certificate, key) as url, Caller(server, pin, "case-31", url) as caller:
        answers = [caller.enrol(secret), caller.enrol(secret)]

    assert {a["code"] for a in answers} == {"E_CHANNEL"}
    assert any("case-31" in line for line in audit(server, "agents.channel"))
    assert "code=E_CHANNEL: case-31 saw another TLS certificate" in log_of(server)
    assert uses(server, secret) == 0


def test_case_32_a_public_key_is_no_proof(server: Server, call: Call) -> None:
    """Everybody may know it (the shape of Salt CVE-2024-38825): without its private half it opens nothing."""
    caller, secret = call("case-32"), server.passphrase("case 32", "--uses", "2")
    assert caller.enrol(secret)["state"] == "pending"
    stolen = Identity(bytes(range(32)))
    stolen.public, stolen.fingerprint = caller.who.identity.public, caller.who.identity.fingerprint
    thief = call("case-32", identity=stolen)

    assert thief.come_back()["code"] == "E_SIGNATURE"
    assert thief.enrol(secret)["code"] == "E_SIGNATURE"
    assert uses(server, secret) == 1


@pytest.mark.parametrize(
    ("place", "part", "code"),
    [
        (0, b64u(bytes(32)), "E_SEAL"),
        (0, b64u(b"\1" + bytes(31)), "E_SEAL"),
        (0, b64u(bytes(31)), "E_MALFORMED"),
        (0, b64u(bytes(33)), "E_MALFORMED"),
        (0, b64u(bytes(32))[:-1] + "B", "E_MALFORMED"),
        (0, b64u(bytes(32)) + "=", "E_MALFORMED"),
        (1, b64u(b"[]"), "E_MALFORMED"),
        (2, b64u(bytes(528)), "E_SEAL"),
        (2, b64u(bytes(527)), "E_MALFORMED"),
    ],
)
def test_case_33_keys_that_are_none(server: Server, call: Call, place: int, part: str, code: str) -> None:
    """Points that hide nothing, spellings that are not canonical, too short, too long."""
    caller = call("case-33")
    payload = caller.who.sealed(caller.challenge(), server.passphrase())
    parts = payload["passphrase"].removeprefix("pmseal1:").split(".")
    parts[place] = part

    assert caller.ask(EVENT_HANDSHAKE, payload | {"passphrase": "pmseal1:" + ".".join(parts)})["code"] == code


# -- 35 to 38: decisions --


def approved(server: Server, caller: Caller) -> dict[str, Any]:
    """Enrol, be approved, have targets."""
    assert caller.enrol(server.passphrase())["state"] == "pending"
    server.admin("agents", "approve", caller.who.hostname, "--fingerprint", caller.who.identity.fingerprint)
    told = caller.pushed("approved")
    wait_for(lambda: (caller.listen(0.1), caller.targets)[1], "targets")
    return told


def test_case_35_a_new_key_under_a_known_name(server: Server, call: Call) -> None:
    """Another machine claims the hostname of an approved agent: it waits, marked; the approved one is not touched."""
    first, other = call("case-35"), call("case-35", ip_address="192.0.2.35")
    agent_id = approved(server, first)["agent_id"]
    assert other.enrol(server.passphrase())["state"] == "pending"

    waiting = agent_of_key(server, other.who)
    assert (waiting["state"], waiting["same_name_as"]) == ("pending", [agent_id])
    shown = json.loads(server.admin("agents", "show", waiting["id"]))
    assert [(row["id"], row["state"]) for row in shown["same_name"]] == [(agent_id, "approved")]
    known = agent_of_key(server, first.who)
    assert (known["state"], known["connected"], known["ip_address"]) == ("approved", True, "127.0.0.1")
    assert first.come_back()["state"] == "approved"

    server.admin("agents", "rekey", agent_id, waiting["id"])
    other.listen(1.5)
    again = call("case-35", ip_address="192.0.2.35", identity=other.who.identity)
    assert again.come_back()["agent_id"] == agent_id, "re-keyed: id and history stay"
    assert first.come_back()["code"] == "E_UNKNOWN_KEY"


def test_case_36_another_address(server: Server, call: Call) -> None:
    """A valid key from a new address: hold; released it may stay, always if told so; within an IPv6 /64 no hold."""
    caller = call("case-36", ip_address="2001:db8:1:2::10")
    agent_id = approved(server, caller)["agent_id"]
    assert caller.moved("2001:db8:1:2:aaaa::99").come_back()["state"] == "approved", "a privacy address"
    assert agent_of(server, "case-36")["ip_address"] == "2001:db8:1:2:aaaa::99"
    held = caller.moved("2001:db8:1:3::10").come_back()
    assert (held["state"], held["reason"], held["agent_id"]) == ("hold", "ip_changed", agent_id)
    assert caller.ask(EVENT_DATA, {})["code"] == "E_STATE"

    server.admin("agents", "release", "case-36")
    assert caller.pushed("approved")["agent_id"] == agent_id
    assert caller.come_back()["state"] == "approved", "once: where it is now"
    assert caller.moved("2001:db8:1:2::10").come_back()["state"] == "approved", "back where it was approved"
    assert caller.moved("2001:db8:1:3::10").come_back()["state"] == "hold", "once was once"

    server.admin("agents", "release", "case-36", "--always")
    caller.pushed("approved")
    for address in ("2001:db8:1:2::10", "2001:db8:1:3::10"):
        assert caller.moved(address).come_back()["state"] == "approved"
    server.admin("agents", "allow", "case-36", "198.51.100.0/24", "127.0.0.1")
    time.sleep(1.2)
    assert caller.moved("198.51.100.77").come_back()["state"] == "approved", "a network"


@pytest.mark.parametrize("ignored", [False, True])
def test_case_36_the_observed_address(services: Services, ignored: bool) -> None:
    """It must be allowed too, unless it is said to be no evidence (address translation)."""
    who = applicant(services)
    no = enrolled(services, who, secret_of(services))
    view = services.registry.approve("probe-1", "test")
    services.registry.set_addresses(view.id, "test", observed_ignored=ignored)

    assert back(services, who, "203.0.113.9") == no
    assert services.registry.snapshot.agents[no].state is (State.APPROVED if ignored else State.HOLD)


def test_case_37_two_machines_with_one_key(server: Server, call: Call) -> None:
    """The first is alive and stays; the second is on hold, with an alarm, and none of its data is taken."""
    first = call("case-37")
    agent_id = approved(server, first)["agent_id"]
    clone = call("case-37", identity=first.who.identity, ip_address="192.0.2.37")
    began = time.monotonic()
    held = clone.come_back()

    assert (held["state"], held["reason"], held["agent_id"]) == ("hold", "duplicate_identity", agent_id)
    assert time.monotonic() - began < 5
    assert clone.ask(EVENT_DATA, {})["code"] == "E_STATE"
    assert "key used twice agent=case-37 from=127.0.0.1" in log_of(server)
    assert any(line.startswith(agent_id) for line in audit(server, "agents.duplicate"))
    row = agent_of(server, "case-37")
    assert (row["state"], row["ip_address"], row["duplicate_identity"]["seen_from"]) == (
        "approved", "127.0.0.1", "127.0.0.1"
    )  # fmt: skip
    assert first.come_back()["state"] == "approved"
    first.__exit__()
    wait_for(lambda: not agent_of(server, "case-37")["connected"], "the first to be gone")
    assert clone.moved("127.0.0.1").come_back()["state"] == "approved", "nobody else is it now"


def test_case_37_a_dead_connection_is_no_second_machine(server: Server, tmp_path: Path, call: Call) -> None:
    """The first one hangs (its process stopped): after 5 s the newest wins, without a word of duplicates."""
    with running_agent(server, tmp_path, "case-37-dead") as agent:
        agent.approve()
        wait_for(lambda: agent_of(server, "case-37-dead")["state"] == "approved", "the approval")
        assert agent.child is not None
        agent.child.process.send_signal(signal.SIGSTOP)
        try:
            identity = identity_file(agent.directory / "state" / "identity.key", "")
            began = time.monotonic()
            answer = call("case-37-dead", identity=identity).come_back()
        finally:
            agent.child.process.send_signal(signal.SIGCONT)

    assert answer["state"] == "approved"
    assert 4 < time.monotonic() - began < 10
    assert not [line for line in audit(server, "agents.duplicate") if "case-37-dead" in line]


def test_case_38_the_row_changed_under_the_click(services: Services) -> None:
    """Approving names the key and the revision that somebody looked at; anything else is a conflict."""
    who = applicant(services)
    no = enrolled(services, who, secret_of(services))
    seen = services.registry.snapshot.agents[no]
    back(services, replace(who, ip_address="192.0.2.66"))

    for expected in (Expected(seen.key_fpr, seen.revision), Expected("another", None), Expected(None, 99)):
        with pytest.raises(Conflict, match="then decide"):
            services.registry.approve(seen.id, "test", expected)
    now = services.registry.snapshot.agents[no]
    assert now.state is State.PENDING
    assert services.registry.approve(seen.id, "test", Expected(now.key_fpr, now.revision)).state is State.APPROVED
    with pytest.raises(Conflict, match="then decide"):
        services.registry.approve(seen.id, "test", Expected("another", None))


# -- 40, 43 --


def test_case_40_a_flood_of_fresh_keys(server: Server, call: Call) -> None:
    """One valid passphrase brings twenty rows an hour; approved agents notice nothing; all are rejected at once."""
    bystander = call("case-40-bystander")
    approved(server, bystander)
    secret, answers = server.passphrase("flood", "--uses", "1000"), []
    for number in range(30):
        answers.append(call(f"case-40-{number}", identity=Identity(bytes([number + 101]) * 32)).enrol(secret))

    assert [a.get("code", a["state"]) for a in answers] == ["pending"] * 20 + ["E_PENDING_FULL"] * 10
    assert uses(server, secret) == 20
    assert bystander.come_back()["state"] == "approved"
    said = server.admin("passphrases", "revoke", secret.split("-")[1], "--reject-pending")
    assert said.endswith("rejected 20 agents that waited with it\n")


@pytest.mark.slow
def test_case_40_five_hundred_in_all(services: Services, clock: FakeClock) -> None:
    """However many passphrases somebody has, 500 wait and no more; after 72 h a request is forgotten."""
    for _ in range(25):
        secret = secret_of(services, max_uses=100)
        for number in range(20):
            enrolled(services, applicant(services, f"h{number}"), secret)
    assert code_of(enrolled, services, applicant(services), secret_of(services)) is ErrorCode.PENDING_FULL
    clock.advance(72 * 3600 - 1)
    assert services.registry.expire_pending() == 0
    clock.advance(1)
    assert services.registry.expire_pending() == 500
    assert enrolled(services, applicant(services), secret_of(services))


def test_case_40_a_forgotten_request_may_be_made_again(services: Services, clock: FakeClock) -> None:
    """Its key is unknown then, so the agent shows its passphrase once more; other rows of that key are history."""
    who, secret = applicant(services), secret_of(services, ttl_s=7 * 86_400)
    first = enrolled(services, who, secret)
    clock.advance(73 * 3600)
    services.registry.expire_pending()

    assert code_of(back, services, who) is ErrorCode.UNKNOWN_KEY
    again = enrolled(services, who, secret)
    assert again != first
    evidence = services.registry.evidence(services.registry.snapshot.agents[again].id)
    assert [row["hostname"] for row in evidence["same_key"]] == ["probe-1"]


def test_case_43_data_before_approval_and_on_hold(server: Server, tmp_path: Path) -> None:
    """E_STATE, nothing stored; the agent keeps it, and released within 30 minutes nothing is lost."""
    with running_agent(server, tmp_path, "case-43") as agent:
        agent.approve()
        rounds = wait_for(lambda: stored(server, "case-43"), "first rounds")
        server.admin("agents", "hold", "case-43")
        wait_for(lambda: "state hold" in (agent.directory / "agent.log").read_text(), "the hold to arrive")
        held = stored(server, "case-43")
        time.sleep(3)
        assert stored(server, "case-43") == held, "nothing is stored on hold"
        server.admin("agents", "release", "case-43")
        last = held[-1] + 4
        after = wait_for(lambda: (s := stored(server, "case-43")) and s[-1] >= last and s, "what was kept")

    assert after == list(range(1, after[-1] + 1)), "no round is missing, none is twice"
    assert rounds[0] == 1


def stored(server: Server, hostname: str) -> list[int]:
    """Numbers of the rounds that were committed, in order."""
    with sqlite3.connect(f"file:{server.directory / 'data' / 'pingmon.db'}?mode=ro", uri=True) as directory:
        (number,) = directory.execute("SELECT no FROM agents WHERE hostname = ?", (hostname,)).fetchone()
    directory.close()
    with sqlite3.connect(f"file:{server.directory / 'data' / 'samples.db'}?mode=ro", uri=True) as samples:
        rows = samples.execute("SELECT seq FROM rounds WHERE agent_no = ? ORDER BY seq", (number,)).fetchall()
    samples.close()
    return [int(row[0]) for row in rows]


def test_case_43_a_pending_client_sends_data(server: Server, call: Call) -> None:
    """Before approval nothing is taken."""
    caller = call("case-43-early")
    caller.enrol(server.passphrase())
    report = {"v": 1, "epoch": "00c0ffee00c0ffee", "rounds": [{"seq": 1, "t": 0, "rev": 1, "rtt": [1]}]}

    assert caller.ask(EVENT_DATA, report)["code"] == "E_STATE"


# -- approval before the first contact --


def test_a_key_approved_beforehand_is_in_at_once(server: Server, tmp_path: Path) -> None:
    """No passphrase anywhere: identity, preapprove, pin into the configuration, and the agent measures."""
    agent = Agent(server, tmp_path / "agent", "beforehand")
    url = server.url.replace("https", "wss")
    write_agent(agent, url=url, ip_address="127.0.0.1", passphrase="")
    (agent.directory / "passphrase").unlink()
    identity = identity_of(agent)
    made = json.loads(
        server.admin("agents", "preapprove", "--hostname", "beforehand", "--ip", "127.0.0.1",
                     "--public-key", identity["public_key"], "--output", "json")
    )  # fmt: skip
    text = agent.config.read_text().replace("[agent]", f'identity = "{made["server_identity"]}"\n[agent]')
    agent.config.write_text(text)
    agent.start()
    try:
        wait_for(lambda: stored(server, "beforehand"), "a first round")
    finally:
        assert agent.stop() == 0

    assert made["key_fpr"] == identity["key_fpr"]
    assert (identity["hostname"], identity["ip_address"]) == ("beforehand", "127.0.0.1")
    assert identity["fingerprint"].replace(" ", "") == identity["key_fpr"][:16]


def identity_of(agent: Agent) -> dict[str, str]:
    """What `pingmon-agent identity --json` prints."""
    command = [sys.executable, "-m", "pingmon_agent", "identity", "--json", "--config", str(agent.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=clean_environment())
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_a_lost_server_identity_is_said(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    """At the first start nothing; where agents know another one, how many turn away and what to do."""
    assert "identity" not in caplog.text
    enrolled(services, applicant(services), secret_of(services))
    (services.config.data_dir / "identity.key").unlink()
    again = open_services(services.config, services.clock)
    try:
        assert "is a new identity: 1 agents know another" in caplog.text
        assert again.enrolment.pin in caplog.text
        assert again.enrolment.pin != services.enrolment.pin
    finally:
        again.close()


def test_a_damaged_server_identity_is_refused(services: Services) -> None:
    """Never made anew by itself."""
    file = services.config.data_dir / "identity.key"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(PepperError, match=r"identity.key is damaged: restore it from a backup, or remove it and give"):
        open_services(services.config, services.clock)


def test_the_leaf_before_a_change_is_still_ours(services: Services) -> None:
    """A certificate that is replaced while the server runs: agents that saw the old one or the new one are let in."""
    who, secret = applicant(services), secret_of(services)
    enrolled(services, who, secret)
    Path(services.config.tls.certificate).write_text(ssl.DER_cert_to_PEM_cert(b"the next one"))

    assert back(services, who)
    assert back(services, replace(who, leaf=b"the next one"))
    assert code_of(back, services, replace(who, leaf=b"somebody's")) is ErrorCode.CHANNEL
    assert LEAF != b"the next one"
