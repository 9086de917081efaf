"""The table of docs/faults.md, out of a run. Must not know: how faults are run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .fault import Fault

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_COUNTS = ("lost", "dup", "altered", "allowed")
_ACCOUNT = ("created", "stored", "expired", "rejected", "damaged", "passed", *_COUNTS, "seconds")
_BEGIN, _END = "<!-- made by `make faults DOCS=1` -->\n", "<!-- end -->"


def _kept(page: str) -> dict[int, str]:
    """Rows that stand there now, by number."""
    part = page.split(_BEGIN)[1].split(_END)[0]
    return {int(line.split("|")[1]): line for line in part.splitlines() if re.match(r"\| \d+ \|", line)}


def rows(done: Iterable[tuple[Fault, Mapping[str, Any]]]) -> str:
    """One row per fault: what was done to it, what was asked, what came out."""
    lines = ["| # | fault | how it is injected | asked for | lost / dup / altered / allowed | of samples | figures |"]
    lines.append("|---|---|---|---|---|---|---|")
    for fault, details in done:
        found = details["result"]
        account = " / ".join(f"{found.get(word, '?'):,}" for word in _COUNTS)
        figures = ", ".join(f"{key} {value:g}" for key, value in found.items() if key not in _ACCOUNT)
        asked = fault.passes + (f" **Short of the list:** {fault.short}" if fault.short else "")
        created = f"{found.get('created', 0):,}"
        lines.append(
            f"| {fault.number} | {fault.title} | {fault.inject} | {asked} | {account} | {created} | {figures} |"
        )
    return "\n".join(lines) + "\n"


def write_table(done: Iterable[tuple[Fault, Mapping[str, Any]]], facts: Mapping[str, Any]) -> None:
    """Put the table between the marks of the page; faults that were not run now keep their rows."""
    page = PAGE.read_text()
    head, line, *made_now = rows(done).splitlines()
    lines = _kept(page) | {int(row.split("|")[1]): row for row in made_now}
    table = "\n".join([head, line, *(lines[number] for number in sorted(lines))]) + "\n"
    machine = (
        f"\n{facts['date']}, {facts['cores']} shared cores ({facts['processor']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}; seed {facts['seed']}, {facts['seconds']} s; "
        f"load average {facts['load_before']:.1f} before and {facts['load_after']:.1f} after.\n"
    )
    made = _BEGIN + "\n" + table + machine + "\n" + _END
    PAGE.write_text(re.sub(re.escape(_BEGIN) + ".*?" + re.escape(_END), lambda _: made, page, flags=re.DOTALL))
