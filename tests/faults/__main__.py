"""`make faults`: every fault in a process of its own, one RESULT line each, all of it in build/bench/faults.json.

`python -m tests.faults 1 7 --seed 42` runs some; `--without GUARD` takes a guard away, and then a fault must not pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.facts import OUT, machine

from .fault import Fault, Findings
from .table import write_table
from .world import Run

HERE = Path(__file__).parent
PATIENCE_S = 600.0


def find_faults() -> dict[int, Fault]:
    """All there are, by number."""
    names = sorted(path.stem for path in HERE.glob("fault_*.py"))
    found = [importlib.import_module(f"tests.faults.{name}").FAULT for name in names]
    return {fault.number: fault for fault in sorted(found, key=lambda fault: fault.number)}


def result_line(number: int, findings: Findings, seconds: float) -> tuple[str, dict[str, float]]:
    """The RESULT line and its numbers; counts are exact."""
    verdict = findings.verdict
    words = ("lost", "dup", "altered", "allowed", "created", "stored", "expired", "rejected", "damaged")
    keys: dict[str, float] = {word: getattr(verdict, word) if verdict else -1 for word in words}
    keys |= {"passed": int(not findings.problems)} | findings.figures | {"seconds": seconds}
    keys = {key: value if isinstance(value, int) else float(f"{value:.3g}") for key, value in keys.items()}
    return f"RESULT fault-{number} " + " ".join(f"{key}={value}" for key, value in keys.items()), keys


def run_here(fault: Fault, args: argparse.Namespace) -> int:
    """One fault in this process; 0 if it passed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"pingmon-fault-{fault.number}-", dir=args.dir) as folder:
        run = Run(Path(folder), args.seed, args.quick, args.without)
        logging.basicConfig(filename=run.home / "agents.log", level=logging.INFO)
        try:
            findings = fault.run(run)
        except Exception:  # noqa: BLE001 - whatever broke, the line and the last events are what helps
            findings = Findings(problems=[traceback.format_exc()])
        if findings.problems:
            _explain(fault, run, findings)
    line, keys = result_line(fault.number, findings, time.monotonic() - began)
    if findings.verdict:
        print(f"fault-{fault.number} seed {args.seed}: {findings.verdict.sentence()}", flush=True)
    print(line, flush=True)
    verdict = dataclasses.asdict(findings.verdict) if findings.verdict else {}
    details = {"result": keys, "seed": args.seed, "verdict": verdict, "problems": findings.problems}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"fault-{fault.number}.json").write_text(json.dumps(details, indent=1) + "\n")
    return 1 if findings.problems else 0


def _explain(fault: Fault, run: Run, findings: Findings) -> None:
    print(f"fault-{fault.number} ({fault.title}) did not pass; seed {run.seed}", file=sys.stderr)
    for problem in findings.problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"the last events:\n{run.journal.text()}", file=sys.stderr, flush=True)


def run_apart(fault: Fault, args: argparse.Namespace) -> dict[str, Any]:
    """One fault in a process of its own; its details."""
    file = OUT / f"fault-{fault.number}.json"
    file.unlink(missing_ok=True)
    flags = ["--here", "--seed", str(args.seed), *(["--quick"] if args.quick else [])]
    flags += ["--without", args.without] if args.without else []
    try:
        subprocess.run([sys.executable, "-m", "tests.faults", str(fault.number), *flags], timeout=PATIENCE_S)
        details: dict[str, Any] = json.loads(file.read_text())
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        details = {"result": {"passed": 0}, "seed": args.seed, "verdict": {}, "problems": [str(error)]}
        print(f"RESULT fault-{fault.number} passed=0", flush=True)
    return details


def parse(faults: dict[int, Fault]) -> argparse.Namespace:
    """The command line, refused with a sentence where it asks for what is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "numbers", nargs="*", type=int, help=f"which faults (default all: {', '.join(map(str, faults))})"
    )
    parser.add_argument("--seed", type=int, default=None, help="of all chance; printed when not given")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, as in `make test`")
    parser.add_argument("--without", default="", metavar="GUARD", help="take a guard away; --list names them")
    parser.add_argument("--list", action="store_true", help="print all faults and their guards")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/faults.md of this run")
    parser.add_argument("--dir", default=None, help="where the files of a run go (default: the system's)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [n for n in args.numbers if n not in faults]:
        parser.error(f"there is no fault {unknown[0]}; there are {', '.join(map(str, faults))}")
    if args.without and not any(args.without in faults[n].guards for n in args.numbers):
        parser.error(f"no guard {args.without!r} in these faults; --list names the guards of each")
    args.seed = args.seed if args.seed is not None else secrets.randbelow(1_000_000)
    return args


def show(faults: dict[int, Fault]) -> None:
    """All there is to run."""
    for fault in faults.values():
        print(f"{fault.number:>3}  {fault.title}: {fault.inject}")
        for guard, text in fault.guards.items():
            print(f"       --without {guard}: {text}")


def main() -> int:
    """Run what is asked for; 1 if any did not pass."""
    faults = find_faults()
    args = parse(faults)
    if args.list:
        show(faults)
        return 0
    chosen = [faults[n] for n in args.numbers or faults]
    if args.here:
        return run_here(chosen[0], args)
    return run_all(chosen, args)


def run_all(chosen: list[Fault], args: argparse.Namespace) -> int:
    """One after the other, beside them those that only wait; then all in one file, and in the docs if asked for."""
    began, facts = time.monotonic(), machine()
    print(f"seed {args.seed}", flush=True)
    chosen = [fault for fault in chosen if _may_run(fault)]
    lanes = [[fault for fault in chosen if fault.waits is waits] for waits in (False, True)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        found = pool.map(lambda lane: [run_apart(fault, args) for fault in lane], lanes)
        results = dict(zip(itertools.chain(*lanes), itertools.chain(*found), strict=True))
    done = {fault: results[fault] for fault in chosen}
    facts |= {"seconds": round(time.monotonic() - began), "load_after": os.getloadavg()[0], "seed": args.seed}
    everything = {"machine": facts, "faults": {str(fault.number): details for fault, details in done.items()}}
    (OUT / "faults.json").write_text(json.dumps(everything, indent=1) + "\n")
    if args.docs:
        write_table(done.items(), facts)
    failed = [fault.number for fault, details in done.items() if details["problems"]]
    rest = f"; not {', '.join(map(str, failed))}" if failed else ""
    print(f"{len(done) - len(failed)} of {len(done)} passed in {facts['seconds']} s{rest}")
    return 1 if failed else 0


def _may_run(fault: Fault) -> bool:
    if fault.root and os.geteuid() != 0:
        print(f"fault-{fault.number} left out: it needs root ({fault.title}); run `sudo make faults`", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
