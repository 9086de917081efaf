"""The door: `python -m pingmon` and the command `pingmon`. Patching comes before every other import."""

import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    from pingmon import concurrency  # noqa: F401 - must be the first import of the process
    from pingmon.cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
