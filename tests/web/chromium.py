"""A headless Chromium under test: quick words for looking and acting, and everything its console complained about."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.processes import wait_for

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # the private CA is not in the browser's store; TLS itself is tested with strict clients elsewhere
    "--ignore-certificate-errors",
)  # fmt: skip


class Chromium:
    """One browser with a profile of its own."""

    def __init__(self, profile: Path, url: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        self.url = url
        self.size(1360, 860)

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def size(self, width: int, height: int, ratio: float = 1) -> None:
        """The window's inner size in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """What prefers-color-scheme says."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def go(self, path: str) -> None:
        """Open a page of the server."""
        self.driver.get(path if path.startswith("https://") else self.url + path)

    def find(self, selector: str) -> WebElement:
        """The first visible match of a CSS selector, waited for."""
        return wait_for(lambda: self.seen(selector), f"{selector} to be seen")

    def seen(self, selector: str) -> WebElement | None:
        """The first visible match right now; a page that is being redrawn shows nothing for a moment."""
        try:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((element for element in found if element.is_displayed()), None)
        except StaleElementReferenceException:
            return None

    def text(self, selector: str) -> str:
        """The text of a match, also of one that only screen readers see."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).get_attribute("textContent"))

    def fill(self, selector: str, text: str) -> None:
        """Type into a field, replacing what is there."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def button(self, label: str, inside: str = "body") -> WebElement:
        """The visible button with exactly this text."""
        path = f".//button[normalize-space()='{label}']"

        def search() -> WebElement | None:
            try:
                places = self.driver.find_elements(By.CSS_SELECTOR, inside)
                found = [element for place in places for element in place.find_elements(By.XPATH, path)]
                return next((element for element in found if element.is_displayed()), None)
            except StaleElementReferenceException:
                return None

        return wait_for(search, f"a button {label!r} in {inside}")

    def click(self, label: str, inside: str = "body") -> None:
        """Click the button with exactly this text, also where the list is drawn anew under the mouse."""

        def clicked() -> bool:
            try:
                self.button(label, inside).click()
            except StaleElementReferenceException:
                return False
            return True

        wait_for(clicked, f"{label!r} to take a click")

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def hover(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a point of the window."""
        chain = ActionChains(self.driver)
        chain.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        if click:
            chain.w3c_actions.pointer_action.click()
        chain.perform()

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def sign_in(self, email: str, password: str) -> None:
        """Through the form."""
        self.go("/login")
        self.fill("#email", email)
        self.fill("#password", password + Keys.ENTER)
        self.find("#account")

    def shot(self, name: str, settle_s: float = 0.3) -> None:
        """Save what is seen as build/screenshots/NAME.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        time.sleep(settle_s)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def complaints(self, *expected: str) -> list[str]:
        """Console errors and warnings since the last call, but for those that hold one of the expected texts."""
        entries = [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        return [message for message in entries if not any(text in message for text in expected)]
