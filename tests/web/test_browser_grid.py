"""The grid in a real browser, before real reports: mouse, keyboard, light and dark, loss and return.

Screenshots go to build/screenshots/.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.processes import wait_for

from .chromium import Chromium
from .people import CELL, EMAIL, PASSWORD, SCROLL, cell_at, colour, open_grid, walk_to, whole
from .stage import HOSTILE, Stage, large

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_the_grid_shows_what_the_agents_report(browser: Chromium) -> None:
    """Live rows arrive; colour and spoken text of known cells are right; the summary counts them."""
    open_grid(browser)
    wait_for(lambda: "6 agents, 8 targets" in browser.text("#summary"), "all rows and columns")
    wait_for(lambda: "2 down" in browser.text("#summary"), "the outages to show")
    spoken = {}
    for row, column in ((0, 0), (1, 3), (3, 0), (0, 4), (0, 7)):
        walk_to(browser, row, column)
        spoken[row, column] = browser.text("#grid-spoken").rsplit(",", 1)[0]
    browser.press(Keys.ESCAPE)

    assert spoken == {
        (0, 0): "probe-fra-1 to router-berlin: ok, 1.24 ms",
        (1, 3): "probe-ams-2 to db-primary: down, no answer",
        (3, 0): "probe-nyc-3 to router-berlin: slow, 86.3 ms",
        (0, 4): "probe-fra-1 to edge-tokyo: very slow, 228.0 ms",
        (0, 7): "probe-fra-1 to old-name: error, name does not resolve",
    }
    browser.js("document.activeElement.blur()")
    assert whole(browser)
    browser.shot("grid-light")
    for (row, column), name in {(0, 0): "ok", (1, 3): "down", (3, 0): "slow", (0, 4): "bad", (0, 7): "error"}.items():
        x, y = cell_at(browser, row, column)
        assert browser.js(CELL, x - 45, y) == colour(browser, f"--cell-{name}"), name
    browser.prefer("dark")
    browser.shot("grid-dark")
    browser.js("document.querySelector('#theme').click()")
    assert browser.js("return localStorage.getItem('pingmon.theme')") == "light"
    browser.prefer("light")
    browser.prefer("dark")
    assert browser.js("return document.documentElement.dataset.theme") == "light"  # the choice by hand stays
    browser.js("localStorage.clear()")
    assert browser.complaints("willReadFrequently") == []  # our own looking at pixels


def test_the_card_says_why_there_is_a_gap(browser: Chromium) -> None:
    """Five minutes without a server: shaded in the chart, and in words below it."""
    open_grid(browser)
    walk_to(browser, 1, 2)
    browser.find(".pair .plot canvas")
    wait_for(lambda: "the server was away" in browser.text(".card-gaps"), "the gap in words")
    lines = browser.js("return Array.from(document.querySelectorAll('.card-gaps li'), (li) => li.textContent)")
    lines = [line for line in lines if line.endswith(": the server was away")]
    spans = [re.findall(r"(\d\d):(\d\d):(\d\d)", line) for line in lines]
    seconds = [[int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in span] for span in spans]
    shaded = browser.js(
        "const c = document.querySelector('.plot canvas'), x = c.getContext('2d'), [r, g, b] = arguments[0];"
        "const d = x.getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 0; i < d.length; i += 4) if (d[i] === r && d[i + 1] === g && d[i + 2] === b) n++; return n",
        colour(browser, "--cell-stale"),
    )
    browser.shot("gap")
    browser.press(Keys.ESCAPE)

    assert any(abs((b - a) % 86_400 - 300) <= 4 for a, b in seconds), lines
    assert shaded > 1_000


def test_a_lost_database_is_said_above_the_grid(browser: Chromium, stage: Stage) -> None:
    """The banner says what is wrong and what to do, and goes by itself once the file is back."""
    open_grid(browser)
    shown = "return document.querySelector('#trouble').offsetHeight > 0"
    before = browser.js(shown)
    file = next(stage.server.directory.rglob("samples.db"))
    away = file.rename(file.with_name("elsewhere.db"))
    try:
        wait_for(lambda: browser.js(shown), "the banner")
        sentence = browser.text("#trouble")
        browser.shot("degraded")
    finally:
        away.rename(file)
    wait_for(lambda: not browser.js(shown), "the banner to go")

    assert not before
    assert "The samples database cannot be written (the file was moved or deleted" in sentence
    assert "the server goes on by itself" in sentence


def test_rows_stay_live(browser: Chromium) -> None:
    """The age of the newest round never grows past the interval: pictures keep coming."""
    open_grid(browser)
    walk_to(browser, 0, 0)
    ages = set()
    for _ in range(8):
        ages.add(browser.text(".pair .muted").rsplit("round ", 1)[1])
        browser.js("document.querySelector('#grid')")
    assert ages <= {"now", "2 s ago", "3 s ago", "4 s ago"}
    browser.press(Keys.ESCAPE)


def test_hovering_a_cell_shows_its_last_hour(browser: Chromium) -> None:
    """Both names, four figures, a chart with the lost pings marked; it goes with the mouse."""
    open_grid(browser)
    x, y = cell_at(browser, 2, 3)
    browser.hover(x, y)
    browser.find(".pair .plot canvas")
    figures = dict(
        zip(
            *[
                [e.text for e in browser.driver.find_elements("css selector", f".figures {tag}")]
                for tag in ("dt", "dd")
            ],
            strict=True,
        )
    )
    red = browser.js(
        "const c = document.querySelector('.plot canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 0; i < d.length; i += 4) if (d[i] > 190 && d[i + 1] < 80 && d[i + 2] < 60) n++; return n"
    )
    browser.shot("hover")

    assert browser.find(".pair h2").text == "probe-lon-1\n→\ndb-primary"
    assert re.fullmatch(r"1[78]\.\d ms|timeout", figures["current"])
    assert re.fullmatch(r"18\.\d ms", figures["median"])
    assert re.fullmatch(r"(2\d|3\d)\.\d ms", figures["max"])
    assert 11 < float(figures["loss"].split()[0]) < 14  # one in eight
    assert red > 300
    browser.hover(5, 5)
    wait_for(lambda: not browser.seen(".pair"), "the card to go")


def test_a_cell_can_be_pinned_and_let_go(browser: Chromium) -> None:
    """Enter keeps the card while the mouse wanders, Escape lets it go; a click does both, too."""
    open_grid(browser)
    walk_to(browser, 0, 1)
    browser.press(Keys.ENTER)
    x, y = cell_at(browser, 4, 4)
    browser.hover(x, y)
    assert "dns-anycast" in browser.find(".pair.pinned h2").text
    browser.press(Keys.ESCAPE)
    wait_for(lambda: not browser.seen(".pair"), "the card to go")
    browser.hover(5, 5)
    browser.hover(x, y, click=True)
    assert "edge-tokyo" in browser.find(".pair.pinned h2").text
    browser.find(".card-close").click()
    wait_for(lambda: not browser.seen(".pair"), "the card to go")


def test_the_grid_is_a_grid_to_screen_readers(browser: Chromium) -> None:
    """Role, size, and the focused cell with its position and both headers."""
    open_grid(browser)
    walk_to(browser, 1, 2)
    attributes = browser.js(
        "const g = document.querySelector('#grid'), "
        "c = document.getElementById(g.getAttribute('aria-activedescendant'));"
        "return [g.role, g.ariaRowCount, g.ariaColCount, c.role, c.ariaColIndex, c.parentElement.ariaRowIndex,"
        " g.querySelector('[role=rowheader]').textContent, g.querySelector('[role=columnheader]').textContent]"
    )
    browser.press(Keys.ESCAPE)

    assert attributes == ["grid", "7", "9", "gridcell", "4", "3", "probe-ams-2", "web-frontend"]


def test_filters_narrow_rows_and_columns(browser: Chromium) -> None:
    """Words of names and addresses; nothing left is said in words."""
    open_grid(browser)
    browser.press("/")
    browser.press(*"lon")
    browser.fill("#filter-targets", "2001:db8")
    browser.js("document.querySelector('#grid').focus()")
    browser.press(Keys.ARROW_UP)
    assert browser.text("#grid-spoken").startswith("probe-lon-1 to vpn-gateway: ok, 21.9 ms")
    assert browser.js("return document.querySelector('#grid').ariaRowCount") == "2"
    browser.fill("#filter-agents", "nowhere")
    assert browser.find("#no-match h2").text == "Nothing matches the filter"


def test_a_change_of_rows_and_columns_leaves_the_keyboard_and_a_pinned_card_where_they_are(
    browser: Chromium, stage: Stage
) -> None:
    """A target that somebody adds, or a filter, moves the cell but not the path that is looked at."""
    open_grid(browser)
    walk_to(browser, 2, 3)
    stage.server.cli("targets", "add", "newcomer", "192.0.2.99")
    wait_for(lambda: "9 targets" in browser.text("#summary"), "the new column")
    assert browser.find(".pair h2").text == "probe-lon-1\n→\ndb-primary"
    browser.press(Keys.ARROW_LEFT)
    assert browser.text("#grid-spoken").startswith("probe-lon-1 to web-frontend: ok, 15.1 ms")
    browser.press(Keys.ENTER)
    browser.fill("#filter-agents", "lon")
    assert browser.find(".pair.pinned h2").text == "probe-lon-1\n→\nweb-frontend"
    assert browser.js("return document.querySelector('#grid [role=gridcell]').parentElement.ariaRowIndex") == "2"
    browser.fill("#filter-agents", "nyc")
    wait_for(lambda: not browser.seen(".pair"), "the card of a filtered path to go")
    browser.fill("#filter-agents", "")
    stage.server.cli("targets", "remove", "newcomer")
    wait_for(lambda: "8 targets" in browser.text("#summary"), "the column to go")


def test_looking_back_shows_the_picture_of_then(browser: Chromium) -> None:
    """The slider goes to an instant of the last day, cards show the hour before it, and the way back is live again."""
    open_grid(browser)
    browser.click("look back")
    slider = browser.find("#scrub-at")
    assert slider.get_attribute("min") == "-1439"
    browser.press(*[Keys.ARROW_LEFT] * 30)
    wait_for(lambda: browser.text("#link").startswith("as of"), "the picture of half an hour ago")
    assert browser.text("#scrub-time").endswith("30 min ago")
    walk_to(browser, 0, 0)
    assert browser.text("#grid-spoken").startswith("probe-fra-1 to router-berlin: ok, 1.")
    assert browser.text(".pair .muted").endswith("round 30 min ago")
    browser.find(".pair .plot canvas")
    assert "/api/v1/history/" in str(browser.find(".pair a").get_attribute("href"))
    browser.shot("grid-past")
    browser.press(Keys.ESCAPE)
    browser.js("document.querySelector('#scrub-at').focus()")
    browser.press(Keys.HOME)
    wait_for(lambda: "0 paths ok" in browser.text("#summary"), "yesterday, of which nothing is known")
    browser.press(Keys.ESCAPE)
    wait_for(lambda: browser.text("#link") == "live", "the present")
    wait_for(lambda: "2 down" in browser.text("#summary"), "all of it")
    assert browser.seen("#scrub") is None


def test_a_lost_server_is_said_and_comes_back(browser: Chromium, stage: Stage) -> None:
    """reconnecting with the picture's age, then live again without a reload."""
    open_grid(browser)
    stage.server.stop()
    wait_for(lambda: browser.text("#link").startswith("reconnecting, picture is"), "the loss to be said")
    browser.shot("grid-reconnecting")
    stage.server.start()
    wait_for(lambda: browser.text("#link") == "live", "the picture to be live again", deadline_s=30)
    assert browser.complaints("WebSocket connection to", "ERR_CONNECTION_REFUSED", "Failed to load resource") == []


def test_signing_out_elsewhere_stops_the_picture(browser: Chromium) -> None:
    """The open grid says so and offers to sign in again; it never looks live."""
    open_grid(browser)
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.go("/agents")
    browser.find("#account").click()
    browser.find("#sign-out").click()
    browser.find("#email")
    browser.driver.close()
    browser.driver.switch_to.window(first)
    wait_for(lambda: browser.text("#link") == "signed out", "the end of the session to be said")
    browser.shot("grid-signed-out")
    browser.find("#signed-out a").click()
    browser.sign_in(EMAIL, PASSWORD)
    assert browser.complaints("401", "WebSocket connection to") == []


def test_500_by_500_is_quick_and_hostile_names_are_text(tmp_path: Path) -> None:
    """A quarter of a million cells: first paint, scrolling and walking stay quick; names that are code stay names."""
    stage = large(tmp_path / "large", 500)
    stage.server.start()
    browser = Chromium(tmp_path / "profile", stage.server.url)
    browser.size(1700, 1000)
    try:
        stage.server.session()
        browser.sign_in(EMAIL, PASSWORD)
        browser.find("#grid")
        wait_for(lambda: "500 agents, 500 targets" in browser.text("#summary"), "the whole picture")
        browser.shot("grid-500")
        mean_ms, worst_ms = browser.driver.execute_async_script(SCROLL)
        browser.js("document.querySelector('#grid').scrollTo(0, 0); document.querySelector('#grid').focus()")
        browser.press(Keys.ARROW_UP)
        for name in HOSTILE:
            assert browser.text("#grid-spoken").startswith(f"{name} to {HOSTILE[0]}:")
            browser.press(Keys.ARROW_DOWN)
        browser.press(Keys.ESCAPE)
        for path in ("/agents", "/targets"):
            browser.go(path)
            wait_for(lambda: HOSTILE[0] in browser.find("main").text, f"{path} with the hostile names")
        assert browser.complaints() == []
        assert mean_ms < 60
        assert worst_ms < 400
    finally:
        browser.close()
        stage.server.stop()
