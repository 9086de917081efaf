"""Every command of the chapter on Ansible in docs/operations.md was run by the tests before this one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable

import pytest

from .bed.ansible import Ansible
from .bed.spaces import ROOT
from .fleet import Fleet


def chapter() -> str:
    text = (ROOT / "docs/operations.md").read_text()
    return text[text.index("## With Ansible") : text.index("## Install by hand")]


def commands(text: str) -> list[list[str]]:
    """The words of each `ansible-playbook`, in blocks and in sentences, without comments."""
    joined = text.replace("\n", " ")
    found = re.findall(r"^(ansible-playbook [^#\n]*)", text, re.MULTILINE) + re.findall(
        r"`(ansible-playbook [^`]*)`", joined
    )
    return [shlex.split(command) for command in found]


def options(words: Iterable[str]) -> set[str]:
    """Which switches and which variables; values are the example's own."""
    found, after = set(), ""
    for word in words:
        if after == "-e":
            found |= set(json.loads(word)) if word.startswith("{") else {word.split("=")[0]}
        elif word.startswith("-") and word != "-e":
            found.add(word)
        after = word
    return found


def test_every_play_of_the_chapter_was_run(fleet: Fleet, ansible: Ansible) -> None:
    asked = [(words[3].removeprefix("playbooks/"), options(words[4:])) for words in commands(chapter())]
    assert len(asked) >= 14
    ran = [(name, options(words)) for name, words in ansible.played]
    assert not [(name, wanted) for name, wanted in asked if not any(name == n and wanted <= got for n, got in ran)]


@pytest.mark.parametrize("name", ["pingmon users create --admin", "pingmon passphrases create --label site"])
def test_commands_on_the_server_were_run(fleet: Fleet, name: str) -> None:
    assert name in chapter()
    assert fleet.commands & {tuple(shlex.split(name)[1:])}
