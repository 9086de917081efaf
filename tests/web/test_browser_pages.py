"""The other pages in a real browser, with real agents: sign-in, agents, passphrases, targets, refusals, empty server.

Screenshots go to build/screenshots/.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.processes import running_agent, running_server, wait_for

from .chromium import Chromium
from .people import EMAIL, PASSWORD, open_grid, walk_to
from .stage import MODE, VIEWER, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


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


def test_a_passphrase_is_made_shown_once_and_lets_an_agent_in(browser: Chromium, stage: Stage, tmp_path: Path) -> None:
    """From an empty host to a coloured row: passphrase, real agent, approval by button, first cell."""
    browser.go("/passphrases")
    browser.fill("#label", "site Warsaw")
    browser.click("Make passphrase")
    clear = browser.find("#clear-passphrase").text
    snippet = browser.find("#agent-toml").text
    variable = browser.js("return document.querySelector('#ansible-variable').textContent")
    browser.shot("passphrase-once")
    with running_agent(stage.server, tmp_path / "agent", "probe-waw-1", passphrase=clear) as agent:
        wait_for(lambda: "probe-waw-1 came with it" in browser.text("#arrived"), "its arrival to be told")
        browser.click("I have stored it")
        wait_for(lambda: browser.seen("tr[data-passphrase='site Warsaw']"), "the new passphrase in the list")
        assert f'url = "wss://127.0.0.1:{stage.server.port}"' in snippet
        assert variable == f'pingmon_agent_passphrase: "{clear}"'
        assert clear not in browser.driver.page_source
        browser.go("/agents")
        browser.find("article[data-agent='probe-waw-1']")
        browser.shot("agents")
        browser.prefer("dark")
        browser.shot("agents-dark")
        browser.click("Approve …", "article[data-agent='probe-waw-1']")
        assert browser.find("dialog .fingerprint").text == agent.identity()["fingerprint"]
        browser.shot("approve-dark")
        browser.click("The keys agree: approve", "dialog")
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


def test_a_key_that_changed_under_the_click_is_shown_not_approved(
    browser: Chromium, stage: Stage, tmp_path: Path
) -> None:
    """Somebody else decides about the same agent meanwhile: the dialog says so, shows what is, and nothing happens."""
    with running_agent(stage.server, tmp_path / "agent", "probe-ber-1") as agent:
        wait_for(lambda: stage.server.agent_state("probe-ber-1") == "pending", "the agent to wait")
        browser.go("/agents")
        browser.click("Approve …", "article[data-agent='probe-ber-1']")
        browser.find("dialog .fingerprint-box")
        stage.server.admin("agents", "allow", "probe-ber-1", "192.0.2.0/24")
        browser.click("The keys agree: approve", "dialog")
        assert "has changed since you looked" in browser.find("dialog [role=alert]").text
        browser.shot("approve-changed")
        assert stage.server.agent_state("probe-ber-1") == "pending"
        browser.click("Cancel", "dialog")
        agent.stop()
    assert browser.complaints("409") == []


def test_several_are_approved_and_rejected_at_once(browser: Chromium, stage: Stage, tmp_path: Path) -> None:
    """Ticks outlive the list's own renewal; each key is shown before; an agent set up anew gets its old place."""
    names = ("probe-rom-1", "probe-rom-2", "probe-rom-3")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(running_agent(stage.server, tmp_path / name, name))
        wait_for(lambda: all(stage.server.agent_state(name) == "pending" for name in names), "all three to wait")
        browser.go("/agents")
        for name in names[:2]:
            browser.find(f"article[data-agent='{name}'] input").click()
        browser.click("Approve 2")
        assert all(name in browser.find("dialog .detail").text for name in names[:2])
        browser.shot("approve-several")
        browser.click("The keys agree: approve", "dialog")
        for name in names[:2]:
            wait_for(lambda name=name: browser.seen(f"tr[data-agent='{name}'] .state-approved"), name)  # type: ignore[misc]
        stack.enter_context(running_agent(stage.server, tmp_path / "anew", names[0]))
        wait_for(lambda: browser.seen(f"article[data-agent='{names[0]}']"), "the same host with a new key")
        browser.click("Approve …", f"article[data-agent='{names[0]}']")
        browser.shot("approve-same-name")
        browser.click("It is the same host: give it this key", "dialog")
        wait_for(lambda: not browser.seen(f"article[data-agent='{names[0]}']"), "the new key to be taken")
        browser.click("Reject", f"article[data-agent='{names[2]}']")
        browser.click("Reject", "dialog")
        wait_for(lambda: stage.server.agent_state(names[2]) == "blacklisted", "the third to be sent away")
        stage.server.admin("agents", "delete", *names)
    assert browser.complaints() == []


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
    wait_for(lambda: "db-primary" in browser.find(".pair h2").text, "the card of the cell under the keyboard")
    browser.press(Keys.ENTER)
    browser.find(".pair .plot canvas")
    browser.shot("grid-narrow")
    browser.press(Keys.ESCAPE)


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
