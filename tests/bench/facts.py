"""What a process has used, medians with their spread, the machine in words, and the RESULT lines with their JSON.

Must not know: what is measured.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[2] / "build" / "bench"


def cpu_ns(pid: int) -> int:
    """On-CPU time of all threads of a process so far, ended ones included, in ns.

    The kernel's clock of that process (CPUCLOCK_SCHED): the sum behind /proc/PID/task/*/schedstat, without the race.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_mib(pid: int) -> dict[str, float]:
    """Resident and proportional set size."""
    status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {
        name.lower() + "_mib": round(int(re.findall(rf"^{name}: +(\d+) kB", status, re.MULTILINE)[0]) / 1024, 1)
        for name in ("Rss", "Pss")
    }


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, least, most and number of values."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def significant(value: float, digits: int = 4) -> float:
    """Rounded to some digits that count."""
    return float(f"{value:.{digits}g}")


def machine() -> dict[str, object]:
    """Kind of machine and when, without names or paths."""
    model = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernel": platform.release(),
        "processor": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def version_of(*command: str) -> str:
    """The first number with dots a program says about itself."""
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(?:\.\d+)+|\d{8}", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def publish(name: str, keys: Mapping[str, float], details: Mapping[str, Any]) -> None:
    """One RESULT line, and the same with all details in build/bench/NAME.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    shown = {key: significant(value) for key, value in keys.items()}
    (OUT / f"{name}.json").write_text(json.dumps({"result": shown, **details}, indent=1) + "\n")
    print(f"RESULT {name} " + " ".join(f"{key}={value:g}" for key, value in shown.items()), flush=True)
