"""The roles have one shape: what has a default is specified and the reverse, and names carry the role's."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from tests.roles.ansible import ROOT
from tests.roles.ansible import yaml_file as read

KEYWORDS = """name when become register loop loop_control vars block always rescue notify tags changed_when failed_when
check_mode delegate_to run_once environment until retries delay no_log diff listen"""
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specification_name_the_same_variables(role: str) -> None:
    home = ROOT / "roles" / role
    specs = read(home / "meta/argument_specs.yml")["argument_specs"]
    assert set(read(home / "defaults/main.yml")) == set(specs["main"]["options"])


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described_and_typed(role: str) -> None:
    options = read(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert not [name for name, spec in options.items() if not spec.get("description") or not spec.get("type")]


@pytest.mark.parametrize("role", ROLES)
def test_names_carry_the_role(role: str) -> None:
    names = read(ROOT / "roles" / role / "defaults/main.yml")
    assert not [name for name in names if not name.startswith(f"{role}_")]


def test_one_version_everywhere() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = setup["metadata"]["version"]
    assert read(ROOT / "galaxy.yml")["version"] == version
    assert str(read(ROOT / "inventory.example/group_vars/all/main.yml")["pingmon_version"]) == version
    for role in ("pingmon_common", "pingmon_server", "pingmon_agent"):
        assert f"pingmon_version | default('{version}')" in (ROOT / "roles" / role / "defaults/main.yml").read_text()


def test_both_units_are_hardened_alike() -> None:
    ours = [ROOT / "roles" / role / "templates/hardening.j2" for role in ("pingmon_server", "pingmon_agent")]
    assert ours[0].read_text() == ours[1].read_text()


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("roles/*/tasks/*.yml")) + sorted(ROOT.glob("roles/*/handlers/*.yml")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_builtin_modules(path: Path) -> None:
    """A host without any other collection must do."""
    words = set(KEYWORDS.split())

    def modules(tasks: list[dict[str, Any]]) -> list[str]:
        found = [key for task in tasks for key in task if key not in words]
        return found + [
            name for task in tasks for part in ("block", "always", "rescue") for name in modules(task.get(part, []))
        ]

    assert not [name for name in modules(read(path) or []) if not name.startswith("ansible.builtin.")]
