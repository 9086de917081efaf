"""The whole agent without the contract's cap on targets per agent: `python -m tests.bench.unlimited run --config FILE`.

Nothing but that number differs from `pingmon-agent`. The bench needs it above 12,000 targets; no server grants so many.
"""

from __future__ import annotations

import sys

from pingmon_agent import cli
from pingmon_agent.wire import codec

if __name__ == "__main__":
    codec.MAX_TARGETS = 1_000_000  # type: ignore[attr-defined]
    sys.exit(cli.main())
