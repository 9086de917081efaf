"""The parent of many processes of `pingmon`: `python -m tests.faults.newborn`, a command line a line on standard input.

Each is a JSON list: the file for what it says, then the words. It runs in a process of its own that begins where the
program has imported everything, which is most of its start. Answers: `began PID`, then `ended CODE`, one at a time.
An argument names a guard that is taken away from all of them.
Must not import anything of the product, or tests that do, before the product's own patching.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def _live(said: str, words: Sequence[str]) -> int:
    """The child: the program, as `python -m pingmon` would run it."""
    from pingmon.cli.main import run

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        return run(words)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _weaken(guard: str) -> None:
    from pingmon.store.chunks import Chunk

    if guard == "tile-crc":
        vars(Chunk)["_frame"].func = lambda chunk: chunk.ends[:-4]
        vars(Chunk)["_sums"].func = lambda _: None


def main() -> None:
    """Import all there is to import, then one process after the other."""
    from pingmon import concurrency

    concurrency.install()
    import pingmon.app
    import pingmon.cli.main  # noqa: F401 - so that children need not

    _weaken("".join(sys.argv[1:]))
    for line in sys.stdin:
        said, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = _live(said, words)
            finally:
                os._exit(code)
        os.write(1, f"began {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
