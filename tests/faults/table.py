"""The table of docs/faults.md, out of a run. Must not know: how faults are run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .fault import Fault

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_ACCOUNT = ("created", "stored", "expired", "rejected", "passed", "lost", "dup", "altered", "allowed", "seconds")
_BEGIN, _END = "<!-- made by `make faults DOCS=1` -->\n", "<!-- end -->"


def rows(done: Iterable[tuple[Fault, Mapping[str, Any]]]) -> str:
    """One row per fault: what was done to it, what was asked, what came out."""
    lines = ["| # | fault | how it is injected | asked for | lost / dup / altered / allowed | of samples | figures |"]
    lines.append("|---|---|---|---|---|---|---|")
    for fault, details in done:
        found = details["result"]
        account = " / ".join(f"{found.get(word, '?'):,}" for word in ("lost", "dup", "altered", "allowed"))
        figures = ", ".join(f"{key} {value:g}" for key, value in found.items() if key not in _ACCOUNT)
        asked = fault.passes + (f" **Short of the list:** {fault.short}" if fault.short else "")
        created = f"{found.get('created', 0):,}"
        lines.append(
            f"| {fault.number} | {fault.title} | {fault.inject} | {asked} | {account} | {created} | {figures} |"
        )
    return "\n".join(lines) + "\n"


def write_table(done: Iterable[tuple[Fault, Mapping[str, Any]]], facts: Mapping[str, Any]) -> None:
    """Put the table between the marks of the page."""
    machine = (
        f"\n{facts['date']}, {facts['cores']} shared cores ({facts['processor']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}; seed {facts['seed']}, {facts['seconds']} s; "
        f"load average {facts['load_before']:.1f} before and {facts['load_after']:.1f} after.\n"
    )
    made = _BEGIN + "\n" + rows(done) + machine + "\n" + _END
    PAGE.write_text(
        re.sub(re.escape(_BEGIN) + ".*?" + re.escape(_END), lambda _: made, PAGE.read_text(), flags=re.DOTALL)
    )
