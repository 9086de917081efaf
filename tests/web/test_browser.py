"""People at work in a real browser, on a real server with real agents: every page, mouse and keyboard, light and dark.

Screenshots go to build/screenshots/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.processes import running_agent, running_server, wait_for

from .chromium import Chromium
from .stage import CITIES, HOSTILE, MODE, TARGETS, VIEWER, Stage, large, small

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
EMAIL, PASSWORD = "admin@example.net", "correct horse battery 7"
CELL = """
const g = document.querySelector('#grid'), c = g.querySelector('canvas'), b = g.getBoundingClientRect();
const ratio = c.width / c.clientWidth, x = arguments[0] - b.left, y = arguments[1] - b.top;
return Array.from(c.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data.slice(0, 3));
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Six agents and eight targets with an hour behind them, reporting on."""
    stage = small(tmp_path_factory.mktemp("small"))
    stage.server.start()
    try:
        with stage.feeding():
            yield stage
    finally:
        stage.server.stop()


@pytest.fixture(scope="module")
def browser(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser in which the first admin has been made by the one-time link."""
    browser = Chromium(tmp_path_factory.mktemp("profile"), stage.server.url)
    link = re.search(r"https://\S+/welcome/\S+", stage.server.cli("users", "create", "--admin").stdout)
    assert link
    browser.go(link.group())
    browser.fill("#email", EMAIL)
    browser.fill("#password", PASSWORD)
    browser.fill("#again", PASSWORD)
    browser.shot("welcome")
    browser.find("main button").click()
    browser.find("#grid")
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test starts in light colours on a wide screen, and ends with a silent console: no error, no violation."""
    browser: Chromium | None = request.getfixturevalue("browser") if "browser" in request.fixturenames else None
    if browser:
        browser.prefer("light")
        browser.size(1360, 860)
    yield
    if browser:
        assert browser.complaints() == []


def open_grid(browser: Chromium) -> None:
    browser.go("/")
    wait_for(lambda: browser.text("#link") == "live", "the grid to be live")


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


def test_sign_in_by_the_form(browser: Chromium) -> None:
    """A wrong password gets a sentence, the right one the grid; the menu signs out again."""
    browser.find("#account").click()
    browser.find("#sign-out").click()
    browser.find("#email")
    browser.shot("login")
    browser.fill("#email", EMAIL)
    browser.fill("#password", "wrong wrong wrong" + Keys.ENTER)
    assert browser.find(".errors").text == "Sign-in failed: the e-mail or the password is wrong."

    browser.sign_in(EMAIL, PASSWORD)
    wait_for(lambda: browser.text("#link") == "live", "the grid to be live")


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
    browser.js("localStorage.clear(); delete document.documentElement.dataset.theme")
    assert browser.complaints("willReadFrequently") == []  # our own looking at pixels


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


def test_a_narrow_screen_is_enough(browser: Chromium) -> None:
    """No page is wider than a phone, and the card fits below the grid."""
    browser.size(390, 844, 2)
    for path in ("/", "/agents", "/targets", "/passphrases"):
        browser.go(path)
        wait_for(lambda: not browser.seen("#loading"), "the page to fill")
        assert browser.js("return document.documentElement.scrollWidth") <= 390, path
        if path == "/agents":
            browser.shot("agents-narrow")
    open_grid(browser)
    walk_to(browser, 2, 3)
    browser.press(Keys.ENTER)
    browser.find(".pair .plot canvas")
    browser.shot("grid-narrow")
    browser.press(Keys.ESCAPE)


def test_a_passphrase_is_made_shown_once_and_lets_an_agent_in(browser: Chromium, stage: Stage, tmp_path: Path) -> None:
    """From an empty host to a coloured row: passphrase, real agent, approval by button, first cell."""
    browser.go("/passphrases")
    browser.fill("#label", "site Warsaw")
    browser.click("Make passphrase")
    clear = browser.find("#clear-passphrase").text
    snippet = browser.find("#agent-toml").text
    browser.shot("passphrase-once")
    browser.click("I have stored it")
    wait_for(lambda: browser.seen("tr[data-passphrase='site Warsaw']"), "the new passphrase in the list")
    assert f'url = "wss://127.0.0.1:{stage.server.port}"' in snippet
    assert clear not in browser.driver.page_source
    with running_agent(stage.server, tmp_path / "agent", "probe-waw-1", passphrase=clear):
        browser.go("/agents")
        browser.find("article[data-agent='probe-waw-1']")
        browser.shot("agents")
        browser.prefer("dark")
        browser.shot("agents-dark")
        browser.click("Approve", "article[data-agent='probe-waw-1']")
        wait_for(lambda: browser.seen("tr[data-agent='probe-waw-1'] .state-approved"), "the agent to be approved")
        open_grid(browser)
        wait_for(lambda: "7 agents" in browser.text("#summary"), "the new row", deadline_s=10)
    browser.go("/agents")
    browser.click("Delete", "tr[data-agent='probe-waw-1']")
    browser.click("Delete", "dialog")
    wait_for(lambda: not browser.seen("tr[data-agent='probe-waw-1']"), "the agent to be gone")


def test_a_viewer_sees_the_picture_and_no_buttons(stage: Stage, tmp_path: Path) -> None:
    """Read-only is read-only on every page; what is not allowed is not offered, and says so when asked for."""
    browser = Chromium(tmp_path / "profile", stage.server.url)
    try:
        browser.sign_in(VIEWER, PASSWORD)
        wait_for(lambda: browser.text("#link") == "live", "the grid to be live")
        assert [a.text for a in browser.driver.find_elements("css selector", ".nav a")] == ["Grid", "Agents", "Targets"]
        for path, row in (("/agents", "tr[data-agent='probe-fra-1']"), ("/targets", "tr[data-target='ntp-1']")):
            browser.go(path)
            browser.find(row)
            assert browser.driver.find_elements("css selector", "main button, main form") == []
        browser.go("/passphrases")
        assert browser.find("main h1").text == "Not allowed"
        assert "This needs the role admin; yours is viewer. Ask an admin." in browser.find("main").text
        assert browser.complaints("403") == []
    finally:
        browser.close()


def test_hold_and_release(browser: Chromium) -> None:
    """An agent can be put on hold and let go again from its row."""
    browser.go("/agents")
    row = "tr[data-agent='probe-syd-2']"
    browser.click("Hold", row)
    wait_for(lambda: browser.seen(f"{row} .state-hold"), "the hold")
    browser.click("Release", row)
    wait_for(lambda: browser.seen(f"{row} .state-approved"), "the release")


def test_targets_are_added_edited_pasted_and_removed(browser: Chromium) -> None:
    """Everything the page offers, and a bad address is refused in words."""
    browser.go("/targets")
    browser.find("tr[data-target='ntp-1']")
    browser.shot("targets")
    browser.fill("#target-name", "new host")
    browser.fill("#target-address", "not an address" + Keys.ENTER)
    assert (
        "'not an address' is no address; give an IPv4 or IPv6 address or a host name" in browser.find(".note-bad").text
    )
    browser.find(".note-close").click()
    browser.fill("#target-address", "192.0.2.99" + Keys.ENTER)
    browser.click("Edit", "tr[data-target='new host']")
    browser.fill("#edit-name", "renamed host" + Keys.ENTER)
    browser.click("Remove", "tr[data-target='renamed host']")
    browser.click("Remove", "dialog")
    wait_for(lambda: not browser.seen("tr[data-target='renamed host']"), "the target to be gone")
    browser.click("Paste a whole list")
    browser.find("dialog textarea").send_keys("\nextra 192.0.2.100 # a comment")
    assert browser.find("dialog [role=status]").text == "9 targets: 1 new or changed, 0 leave."
    browser.shot("targets-paste")
    browser.click("Replace the list")
    browser.click("Remove", "tr[data-target='extra']")
    browser.click("Remove", "dialog")
    wait_for(lambda: not browser.seen("tr[data-target='extra']"), "the target to be gone")
    assert browser.complaints("422") == []  # the refused address


def test_an_unknown_page_fits_in(browser: Chromium) -> None:
    """404 with a way back and a reference."""
    browser.go("/nothing")
    assert browser.find("main h1").text == "Not found"
    browser.shot("error")
    assert browser.complaints("404") == []


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


def test_an_empty_server_says_what_to_do_next(tmp_path: Path) -> None:
    """No agents, then no targets: each with the next step."""
    with running_server(tmp_path / "server", mode=MODE) as server:
        visitor = server.session()
        assert visitor.json("/api/v1/agents") == {"agents": []}
        browser = Chromium(tmp_path / "profile", server.url)
        try:
            browser.sign_in(EMAIL, PASSWORD)
            assert browser.find("#no-agents h2").text == "No agents yet"
            browser.shot("empty")
            with running_agent(server, tmp_path / "agent", "probe-1") as agent:
                agent.approve()
                assert browser.find("#no-targets h2").text == "No targets yet"
                server.cli("targets", "add", "loopback", "127.0.0.1")
                browser.find("#grid")
                wait_for(lambda: "1 path ok" in browser.text("#summary"), "the first coloured cell", deadline_s=10)
            assert browser.complaints() == []
        finally:
            browser.close()


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
