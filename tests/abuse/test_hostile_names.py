"""Cases 39 and 49: names that are code somewhere. On the wire they are refused; those that got into the database by
another way are text wherever they are shown. There is no e-mail yet.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import urllib.parse
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from selenium.common.exceptions import NoAlertPresentException

from pingmon.services import targets as rules
from pingmon.services.bundle import Services
from pingmon.store.models import Agent, Target
from pingmon_agent.pairs import Pairs
from pingmon_agent.wire.contract import EVENT_HANDSHAKE, TargetSet
from pingmon_agent.wire.contract import Target as WireTarget
from pingmon_agent.wire.seal import Identity
from tests.support.applicant import Caller
from tests.support.processes import Server, wait_for
from tests.web.chromium import Chromium
from tests.web.people import EMAIL, PASSWORD, open_grid
from tests.web.stage import Stage, write_history

from .conftest import Call
from .victim import Victim
from .wire import hello, sample

pytestmark = pytest.mark.e2e
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"onmouseover="alert(1)',
    "element": "<img src=x onerror=alert(1)>",
    "template": "{{7*7}}",
    "path": "../../etc/passwd",
    "long": "x" * 254,
    "right to left": "\u202egnp.exe",
    "nul": "nul\x00nul",
    "line": "line\ninfo agent connected agent=forged",
    "return": "return\rinfo",
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "formula": "=cmd|' /C calc'!A0",
    "dot": "trailing.example.",
    "homograph": "p\u0430ypal.example",
    "kelvin": "\u212aube.example",
    "label": 'x"} 1\npingmon_server_targets{forged="',
    "backslash": "back\\",
    "empty": "",
}
WHO = Identity(bytes([39]) * 32)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e]")


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_case_39_refused_on_the_wire(server: Server, call: Call, name: str) -> None:
    """E_HOSTNAME in either form of the handshake, or, for NUL, no JSON at all; nobody is registered, and the log has
    one line for each.
    """
    before = server.session().json("/api/v1/agents")["agents"]
    caller = call("honest")
    code = "E_MALFORMED" if "\x00" in name else "E_HOSTNAME"
    assert caller.ask(EVENT_HANDSHAKE, caller.who.hello() | {"hostname": name})["code"] == code
    sealed = caller.who.sealed(caller.challenge(), server.passphrase()) | {"hostname": name}
    assert caller.ask(EVENT_HANDSHAKE, sealed)["code"] == code
    assert caller.ask(EVENT_HANDSHAKE, hello(server.legacy_passphrase(), name))["code"] == code

    assert server.session().json("/api/v1/agents")["agents"] == before
    assert CONTROL.search((server.directory / "server.log").read_text()) is None


# -- by another way --


def plant(services: Services) -> None:
    """Agents and targets of these names, put in directly, and one round of each agent; the first one's key is known."""
    now = services.clock.wall_ms()
    names = [name for name in HOSTILE.values() if name]
    with services.registry.change() as tx:
        for i, name in enumerate(names):
            for state in ("approved", "pending"):
                row = Agent(
                    uid=f"00000000-0000-7000-8000-{i:06d}{state[:6]}", hostname=name, state=state, version=name[:32],
                    ip_address="127.0.0.1", observed_ip="127.0.0.1", legacy=True, registered_ms=now, seen_ms=now,
                )  # fmt: skip
                if name == HOSTILE["line"] and state == "approved":
                    row.public_key, row.key_fingerprint, row.legacy = WHO.public, WHO.fingerprint, False
                tx.add_agent(row)
            tx.add_target(Target(name=name, address=f"198.51.100.{i + 1}", created_ms=now))
        tx.flush()
        rules.renew_sets(tx, now)
    numbers = [agent.no for agent in services.registry.agents() if agent.state == "approved"]
    write_history(services, numbers, 4, 20, lambda row, column, k: 1000 * (row + column + k + 1))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that found them in its database."""
    stage = Stage(tmp_path_factory.mktemp("planted"), interval_s=600)
    with stage.prepared() as services:
        plant(services)
    stage.server.start()
    try:
        yield stage.server
    finally:
        stage.server.stop()


@pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="needs Chromium: run `apt-get install chromium-driver`"
)
def test_case_39_49_text_in_every_page(planted: Server, tmp_path: Path) -> None:
    """The browser asks nothing, runs nothing and complains of nothing; each page shows the names as they are."""
    planted.session()
    browser = Chromium(tmp_path / "profile", planted.url)
    try:
        browser.sign_in(EMAIL, PASSWORD)
        open_grid(browser)
        browser.js("document.querySelector('#grid').focus()")
        for key in ("\ue013", "\ue015", "\ue015", "\ue014"):  # up, down, down, right
            browser.press(key)
        for x in range(40, 700, 60):
            browser.hover(x, 200)
        spoken = browser.text("#grid-spoken")
        assert any(f"{name} to " in spoken for name in HOSTILE.values() if name)
        for path in ("/agents", "/targets", "/passphrases"):
            browser.go(path)
            if path != "/passphrases":
                wait_for(lambda: "<script>alert(1)</script>" in browser.find("main").text, f"{path} with the names")
                assert "{{7*7}}" in browser.find("main").text
            for element in browser.driver.find_elements("css selector", "main tr, main article")[:30]:
                browser.js("arguments[0].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))", element)
            assert browser.js("return document.querySelectorAll('[onmouseover], [onerror], img[src=x]').length") == 0
        with pytest.raises(NoAlertPresentException):
            browser.driver.switch_to.alert.accept()
        assert browser.complaints() == []
    finally:
        browser.close()


def test_case_39_json_and_csv(planted: Server) -> None:
    """The API gives the names as JSON; in CSV what a spreadsheet would run is text, and a line break is quoted."""
    session = planted.session()
    names = {name for name in HOSTILE.values() if name}
    assert {row["hostname"] for row in session.json("/api/v1/agents")["agents"]} == names
    target = urllib.parse.quote("198.51.100.1")
    status, text = session.request(f"/api/v1/history?target={target}&from=-1h&step=60", Accept="text/csv")
    assert status == 200, text[:300]
    cells = [row[0] for row in csv.reader(io.StringIO(text))][1:]

    assert {cell.replace("\r\n", "\n") for cell in cells} >= {"<script>alert(1)</script>", HOSTILE["line"]}
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r"]
    assert "'" + HOSTILE["formula"] in cells


@pytest.mark.parametrize("noun", ["agents", "targets"])
def test_case_39_the_command_line(planted: Server, noun: str) -> None:
    """Tables and CSV have one line for each row and nothing that a terminal obeys; JSON is ASCII."""
    rows = json.loads(planted.admin(noun, "list", "--output", "json"))
    for output in ("table", "csv"):
        said = planted.admin(noun, "list", "--output", output).replace("\r\n", "\n")
        assert CONTROL.search(said) is None
        assert len(said.splitlines()) == len(rows) + 1
        assert ("'=cmd" in said) is (output == "csv")
    assert planted.admin(noun, "list", "--output", "json").isascii()


def test_case_39_a_decision_on_the_command_line(planted: Server) -> None:
    """What a command says about one agent is one line too."""
    held = [
        row for row in json.loads(planted.admin("agents", "list", "--output", "json")) if row["state"] == "approved"
    ]
    escape = next(row["id"] for row in held if row["hostname"] == HOSTILE["escape"])
    said = planted.admin("agents", "hold", escape) + planted.admin("agents", "release", escape)

    assert CONTROL.search(said) is None
    assert len(said.splitlines()) == 2


def test_case_39_the_log(planted: Server) -> None:
    """An agent whose row has a line break in its name comes and goes: no line of the log is its own."""
    pin = planted.passphrase("for its pin").split("-")[3]
    with Caller(planted, pin, "honest", identity=WHO) as caller:
        assert caller.come_back()["state"] == "approved"
        caller.listen(0.5)
    log = planted.directory / "server.log"
    wait_for(lambda: "agent disconnected agent=line" in log.read_text(), "the agent to be gone")
    lines = log.read_text().splitlines()

    assert CONTROL.search(log.read_text()) is None
    assert not [line for line in lines if line.startswith("info agent connected agent=forged")]
    assert [line for line in lines if r"agent=line\x0ainfo agent connected agent=forged from=127.0.0.1" in line]


def series(text: str) -> Counter[tuple[str, tuple[tuple[str, str], ...]]]:
    """All series of a page of metrics, as Prometheus would tell them apart; fails where the page is none."""
    families = text_string_to_metric_families(text)
    return Counter((s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples)


def test_case_39_49_the_servers_metrics(planted: Server) -> None:
    """Valid text, no series twice, none forged; an agent's name is the value of one label and nothing else."""
    found = series(planted.session().request("/metrics")[1])

    assert max(found.values()) == 1
    assert not [labels for _, labels in found if any(name == "forged" for name, _ in labels)]
    agents = {dict(labels)["agent"] for name, labels in found if name == "pingmon_server_agent_connected"}
    assert agents == {name for name in HOSTILE.values() if name}


def test_case_49_the_agents_metrics() -> None:
    """What a server names its targets: valid text, and no two series alike, even where names are made to meet."""
    names = [*HOSTILE.values(), "same", "same", "same#101", "same#102", "\ud800", "\ud801"]
    targets = tuple(WireTarget(id=84 + i, name=name or "-", address="192.0.2.1") for i, name in enumerate(names))
    pairs = Pairs('source"} 1\n')
    pairs.load(TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=5, targets=targets))
    pairs.observe(array("i", [1000] * len(names)), 0)
    found = series(pairs.render().encode().decode())

    assert max(found.values()) == 1
    shown = {dict(labels)["target"] for name, labels in found if name == "pingmon_ping_requests_total"}
    assert len(shown) == len(names)
    assert not [labels for _, labels in found if any(name == "forged" for name, _ in labels)]


def test_case_49_a_million_target_ids_make_no_series(victim: Victim) -> None:
    """Only the directory makes series. A legacy agent names targets that nobody has, as many as fit into its messages;
    a current one cannot name any: its `refused`, the one place with ids, is counted for targets it has.
    """
    with victim.agent("case-49") as client:
        before = series(victim.server.session().request("/metrics")[1])
        for turn in range(6):
            ids = range(turn * 800, turn * 800 + 800)
            answer = client.ask("monitoring_data", [sample(1.0) | {"target": str(1_000_000 + i)} for i in ids])
            assert len(answer["rejected"]) == 800
        after = series(victim.server.session().request("/metrics")[1])

    assert set(after) == set(before)
    assert victim.metric('pingmon_server_results_rejected_total{reason="E_TARGET"}') >= 4800
