"""`make picture` (root): the screenshot in README.md, taken of a running lab with its jitter, loss and outage.

python -m tests.lab.picture docs/images/grid.png
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

from pingmon.cli.children import Child
from tests.lab import control
from tests.support.processes import clean_environment, free_port, wait_for
from tests.web.chromium import Chromium

# Long enough for every cell to have its last 12 rounds.
MEASURE_S = 25
SIZE = (1180, 560)


def main(target: Path) -> int:
    """Run a lab, make its admin, cut one path, look at the grid."""
    with tempfile.TemporaryDirectory() as name:
        top, port = Path(name), free_port()
        words = [sys.executable, "-m", "tests.lab", "--dir", str(top / "lab"), "--port", str(port), "--interval", "1"]
        lab = Child("lab", words, top / "lab.log", clean_environment())
        try:
            wait_for(lambda: "== ready after" in (top / "lab.log").read_text(), "the lab", deadline_s=90)
            control.send(top / "lab", op="up", a="lon", b="nyc")
            print(f"== measuring for {MEASURE_S} s", flush=True)
            time.sleep(MEASURE_S)
            control.send(top / "lab", op="down", a="lon", b="nyc")
            time.sleep(8)
            _photograph(top, f"https://127.0.0.1:{port}", (top / "lab.log").read_text(), target)
        finally:
            lab.stop(20)
    print(f"== {target}")
    return 0


def _photograph(top: Path, url: str, log: str, target: Path) -> None:
    browser = Chromium(top / "profile", url)
    try:
        browser.size(*SIZE, 1.5)
        link = re.search(r"https://\S+/welcome/\S+", log)
        assert link is not None, log
        browser.go(link.group())
        for field, text in (("#email", "admin@example.net"), ("#password", top.name * 2), ("#again", top.name * 2)):
            browser.fill(field, text)
        browser.find("main button").click()
        browser.find("#grid")
        time.sleep(4)
        target.parent.mkdir(parents=True, exist_ok=True)
        browser.driver.save_screenshot(str(target))
    finally:
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
