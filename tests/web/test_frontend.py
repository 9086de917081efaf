"""The sources of the browser part: types, their own unit tests, and colours that people can read."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import pingmon

FRONTEND = Path(pingmon.__file__).parent / "frontend"
VENV_BIN = FRONTEND.parents[1] / ".venv" / "bin"
# text on ground: WCAG AA asks for 4.5 to 1
READ = [
    ("text", "ground"), ("text", "surface"), ("muted", "ground"), ("muted", "surface"), ("muted", "hover"),
    ("link", "surface"), ("on-brand", "brand"), ("on-danger", "danger"), ("on-note", "note"),
    ("good-text", "good-soft"),
    ("warn-text", "warn-soft"), ("bad-text", "bad-soft"), ("bad-text", "surface"), ("warn-text", "surface"),
    *((f"cell-{state}-text", f"cell-{state}") for state in ("ok", "slow", "bad", "lossy", "down", "error", "stale")),
]  # fmt: skip
# marks that carry meaning without text: 3 to 1
SEEN = [(f"cell-{state}-mark", f"cell-{state}") for state in ("slow", "bad", "lossy", "down", "error")] + [
    ("lost", "surface"), ("chart", "surface"), ("ring", "surface"), ("good", "surface"),
]  # fmt: skip


def node(*words: str) -> None:
    """Run node in the front end's directory; its output is the failure."""
    program = shutil.which("node") or shutil.which("node", path=str(VENV_BIN))
    assert program, "node is not installed; run `make frontend`, which brings it, then test again"
    done = subprocess.run([program, *words], cwd=FRONTEND, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_strict_and_right() -> None:
    """tsc --strict finds nothing."""
    node("node_modules/typescript/bin/tsc", "--noEmit")


def test_unit_tests_of_the_browser_part() -> None:
    """The stream, the figures and the geometry, in node's own test runner."""
    node("test.mjs")


def palettes() -> dict[str, dict[str, str]]:
    """Colours by name, of the light and of the dark set."""
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", (FRONTEND / "src" / "tokens.css").read_text())
    return {name.strip(): dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})\b", body)) for name, body in blocks}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """1 (the same) to 21 (black on white)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", palettes().values(), ids=palettes().keys())
def test_colours_can_be_read(palette: dict[str, str]) -> None:
    """AA in both themes: text 4.5 to 1, marks 3 to 1."""
    weak = {
        (front, ground): round(contrast(palette[front], palette[ground]), 2)
        for pairs, least in ((READ, 4.5), (SEEN, 3.0))
        for front, ground in pairs
        if contrast(palette[front], palette[ground]) < least
    }
    assert weak == {}


def test_both_sets_have_the_same_colours() -> None:
    """A colour that one set lacks would be the other's."""
    light, dark = palettes().values()

    assert dark.keys() == light.keys()
