"""The door: `python -m pingmon` and the command `pingmon`.

The server's green threads need the standard library patched before anything else is imported; no other command does.
"""

import sys

EX_FAILED, EX_CONFIG = 1, 78


def main() -> int:
    """Run the command line; returns its exit code."""
    try:
        return _run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pingmon"):
            raise
        # The wheel carries both programs; a host with the agent alone has this command too.
        extra = "gevent" if error.name == "gevent" else "server"
        sys.stderr.write(f"pingmon: the package {error.name} is not installed here; install `pingmon[{extra}]`\n")
        return EX_FAILED


def _run(argv: list[str]) -> int:
    if argv[:1] == ["serve"]:
        from pingmon import concurrency

        try:
            remark = concurrency.install()
        except concurrency.ModeError as error:
            sys.stderr.write(f"pingmon: {error}\n")
            return EX_CONFIG
        if remark:
            sys.stderr.write(f"pingmon: websocket messages will cost more than they should: {remark}\n")
    from pingmon.cli.main import run

    return run(argv)


if __name__ == "__main__":
    raise SystemExit(main())
