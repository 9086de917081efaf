"""`pingmon serve` that stops working inside when told to: `python -m tests.server.freezing FILE serve --config ...`.

FILE is looked at whenever the committer comes by. `committer`: it waits for ever; `dead`: its thread ends; `hub`: the
thread of the operating system in which all green ones run is kept in C. All else is the program as it is.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any


def arrange(order: Path) -> Any:
    """Put the committer that obeys in its place; returns the command line's `run`."""
    import threading

    from pingmon.cli.main import run
    from pingmon.services import bundle
    from pingmon.services.ingest import Ingest

    class Freezing(Ingest):
        def _take_jobs(self) -> list[Any]:
            word = order.read_text() if order.exists() else ""
            if word == "dead":
                raise SystemExit
            if word == "committer":
                threading.Event().wait()
            if word == "hub":
                ctypes.CDLL(None).sleep(3600)
            return super()._take_jobs()

    assert "Ingest" in vars(bundle)
    vars(bundle)["Ingest"] = Freezing
    return run


def main(order: str, *words: str) -> int:
    """As `pingmon.__main__` does it: patch first, then import everything else."""
    from pingmon import concurrency

    concurrency.install()
    return int(arrange(Path(order))(list(words)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
