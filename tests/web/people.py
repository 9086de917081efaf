"""What a person does at the grid, in words for tests: open it, point at a cell, walk to one, look at a colour."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from tests.support.processes import wait_for

from .chromium import Chromium
from .stage import CITIES, TARGETS

EMAIL, PASSWORD = "admin@example.net", "correct horse battery 7"
CELL = """
const g = document.querySelector('#grid'), c = g.querySelector('canvas'), b = g.getBoundingClientRect();
const ratio = c.width / c.clientWidth, x = arguments[0] - b.left, y = arguments[1] - b.top;
return Array.from(c.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data.slice(0, 3));
"""
SCROLL = """
const done = arguments[0], g = document.querySelector('#grid'), start = performance.now();
let n = 0, last = start, worst = 0;
function step() {
  const now = performance.now(); worst = Math.max(worst, now - last); last = now;
  g.scrollTop = n * 40; g.scrollLeft = n * 30;
  if (++n < 90) requestAnimationFrame(step); else done([(now - start) / 90, worst]);
}
requestAnimationFrame(step);
"""


def open_grid(browser: Chromium) -> None:
    browser.go("/")
    wait_for(lambda: browser.text("#link") == "live", "the grid to be live")
    # The connection is live a moment before its first picture is there, and keys have nowhere to go until then.
    wait_for(lambda: "agent" in browser.text("#summary"), "the first picture")


def cell_at(browser: Chromium, row: int, column: int) -> tuple[float, float]:
    """The middle of a cell in window coordinates, worked out from the size of the picture."""
    left, top, width, height = browser.js(
        "const b = document.querySelector('#grid').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    cell_w, cell_h = browser.js("return [116, 44]")
    return (
        left + width - (len(TARGETS) - column - 0.5) * cell_w,
        top + height - (len(CITIES) - row - 0.5) * cell_h,
    )


def whole(browser: Chromium) -> bool:
    """Whether the picture fills its frame, with no scroll bar that nobody needs."""
    sizes = browser.js(
        "const g = document.querySelector('#grid'), c = g.querySelector('canvas');"
        "return [g.clientWidth, g.offsetWidth, c.clientWidth, g.scrollWidth, g.clientHeight, g.offsetHeight,"
        " c.clientHeight, g.scrollHeight]"
    )
    return len(set(sizes[:4])) == 1 and len(set(sizes[4:])) == 1


def walk_to(browser: Chromium, row: int, column: int) -> None:
    """By keyboard from the corner."""
    browser.js("document.querySelector('#grid').focus()")
    browser.press(Keys.ARROW_UP)
    browser.press(*[Keys.ARROW_UP] * len(CITIES), *[Keys.ARROW_LEFT] * len(TARGETS))
    browser.press(*[Keys.ARROW_DOWN] * row, *[Keys.ARROW_RIGHT] * column)


def colour(browser: Chromium, variable: str) -> list[int]:
    text = browser.js(
        "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()", variable
    )
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]
