"""Docs cannot drift: what the code has and what docs/ says are compared here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import pingmon.config
import pingmon_agent.config
from pingmon_agent import pairs
from pingmon_agent.metrics import AGENT_METRICS
from pingmon_agent.session import TABLE
from pingmon_agent.wire import contract
from tests.abuse import table as abuse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def doc(name: str) -> str:
    return (DOCS / name).read_text()


def test_agent_metrics_are_described() -> None:
    """docs/metrics.md has a line for each name the agent exports, and for no other."""
    exported = {name for name, *_ in AGENT_METRICS} | {name for name, *_ in pairs.PAIR_METRICS}
    documented = set(re.findall(r"`(pingmon_(?:agent|ping)_\w+)`", doc("metrics.md")))

    assert exported == documented


def server_settings() -> set[str]:
    return {
        f"{section.name}.{key.name}"
        for section in dataclasses.fields(pingmon.config.Config)
        for key in dataclasses.fields(section.default)
    }


def agent_settings() -> set[str]:
    return {
        f"{name}.{key.name}" for name, kind in pingmon_agent.config.SECTIONS.items() for key in dataclasses.fields(kind)
    }


@pytest.mark.parametrize(
    ("heading", "settings"), [("server.toml", server_settings()), ("agent.toml", agent_settings())]
)
def test_settings_are_described(heading: str, settings: set[str]) -> None:
    """docs/operations.md has a line for each setting of both programs, and for no other."""
    part = doc("operations.md").split(f"## {heading}\n")[1].split("\n## ")[0]

    assert set(re.findall(r"^\| `(\w+\.\w+)` \|", part, re.MULTILINE)) == settings


def test_codes_and_states_are_described() -> None:
    """docs/wire.md explains every error code, state, outcome and event."""
    text = doc("wire.md")
    words = [
        *contract.ErrorCode,
        *contract.State,
        contract.EVENT_HANDSHAKE,
        contract.EVENT_TARGETS,
        contract.EVENT_DATA,
    ]
    missing = [word for word in words if f"`{word}`" not in text]
    missing += [outcome.name for outcome in contract.Outcome if f"| {int(outcome)} |" not in text]

    assert missing == []


def test_the_state_diagram_is_the_table() -> None:
    """docs/wire.md draws the agent's state machine; every arrow is in the code and every arrow of the code is drawn."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", doc("wire.md"), re.MULTILINE))
    table = {(before.value, after.value, event.value) for before, row in TABLE.items() for event, after in row.items()}

    assert drawn == table


def test_links_lead_somewhere() -> None:
    """Relative links and images in README and docs/ exist."""
    broken = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *DOCS.glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_architecture_names_every_module() -> None:
    """docs/architecture.md gives each module its line."""
    text = doc("architecture.md")
    modules = [
        path.relative_to(ROOT)
        for package in ("pingmon", "pingmon_agent")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts and "node_modules" not in path.parts
    ]

    assert [str(path) for path in modules if f"`{path.name}`" not in text] == []


def test_every_abuse_case_has_a_test_and_a_row() -> None:
    """docs/security.md names the tests that hold each case; `python -m tests.abuse.table` writes it."""
    text = doc("security.md")

    assert abuse.page(text) == text
    assert sorted(set(abuse.CASES) - set(abuse.tests())) == []
