"""The rules: promtool accepts them, each alert was seen to fire and to keep quiet, and all they read is exported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.prometheus import promtool

from .exported import LATER, agent_page, names, server_page
from .sources import DASHBOARDS, RULE_TESTS, RULES, RUNBOOKS, alerts, exported, recorded, rule_lines


def test_only_what_is_exported_is_asked_for(tmp_path: Path) -> None:
    """Each name in rules and dashboards is on the page of a real server or agent: a missing one is an alert that
    never fires.
    """
    there = names(server_page(tmp_path)) | names(agent_page()) | LATER
    texts = {path.name: path.read_text() for path in [*DASHBOARDS, *RULE_TESTS]} | {RULES.name: rule_lines()}

    assert {(name, metric) for name, text in texts.items() for metric in exported(text) - there} == set()
    assert len(exported(rule_lines())) > 15


def test_only_what_is_recorded_is_read() -> None:
    """Alerts and dashboards use no recorded series that nobody records."""
    made = set(re.findall(r"^      - record: (\S+)$", RULES.read_text(), re.MULTILINE))
    read = {(path.name, name) for path in [*DASHBOARDS, *RULE_TESTS] for name in recorded(path.read_text()) - made}

    assert read == set()
    assert recorded(RULES.read_text()) == made


def test_each_alert_was_seen_firing_and_quiet() -> None:
    """The unit tests have both of every alert: one that cannot fire, or always does, is none."""
    text = "\n".join(path.read_text() for path in RULE_TESTS)
    quiet = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text))
    firing = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels:", text))

    assert firing == set(alerts())
    assert quiet == set(alerts())


def test_each_alert_has_its_page_and_is_well_made() -> None:
    """docs/runbooks has a page for each alert and none beside; each has a severity that people know and both texts."""
    text = rule_lines()
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == sorted(alerts())
    assert len(alerts()) == len(set(alerts()))
    for name in alerts():
        page = (RUNBOOKS / f"{name}.md").read_text()
        rule = text.split(f"- alert: {name}\n")[1].split("- alert: ")[0]
        severity = re.search(r"severity: (critical|warning|info)\}", rule)
        assert severity, name
        assert page.startswith(f"# {name}\n\n**Means** ({severity[1]}): "), name
        assert page.count("\n**") == 3, name
        assert "summary: " in rule, name
        assert "description: " in rule, name


@pytest.mark.e2e
def test_promtool_takes_the_rules_and_their_tests() -> None:
    """`promtool check rules` and `promtool test rules`."""
    checked = promtool("check", "rules", str(RULES))
    tested = promtool("test", "rules", *(path.name for path in RULE_TESTS), folder=RULES.parent)

    assert checked[0] == 0, checked[1]
    assert tested[0] == 0, tested[1]


@pytest.mark.e2e
@pytest.mark.parametrize("page", ["server", "agent"])
def test_promtool_has_nothing_to_say_about_the_pages(page: str, tmp_path: Path) -> None:
    """`promtool check metrics` on what the exporters write."""
    text = server_page(tmp_path) if page == "server" else agent_page()

    assert promtool("check", "metrics", given=text) == (0, "")
