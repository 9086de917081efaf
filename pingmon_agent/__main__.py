"""The door: `python -m pingmon_agent` and the `pingmon-agent` command."""

from __future__ import annotations

import sys

from .cli import main as run_command


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run_command())


if __name__ == "__main__":
    main()
