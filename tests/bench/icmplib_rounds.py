"""A peer: icmplib's async_multiping as a long-running program would use it. One line in is one round, one line out.

`python -m tests.bench.icmplib_rounds TARGETS.json CONCURRENT PRIVILEGED`; a line out is {"address": ms or null}.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

import icmplib


async def one_round(addresses: list[str], concurrent: int, privileged: bool) -> dict[str, float | None]:
    """Ping each address once; milliseconds, None where no reply came."""
    hosts = await icmplib.async_multiping(
        addresses, count=1, timeout=2, concurrent_tasks=concurrent, privileged=privileged
    )
    return {host.address: host.rtts[0] if host.rtts else None for host in hosts}


def main(targets: str, concurrent: str, privileged: str) -> None:
    """Rounds until stdin ends."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # it opens a socket per target
    addresses = json.loads(Path(targets).read_text())
    print("ready", flush=True)
    for _ in sys.stdin:
        answered = asyncio.run(one_round(addresses, int(concurrent), privileged == "1"))
        print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
