"""Answers echo requests that arrive on a TUN device after a fixed delay: `python -m tests.bench.responder FD SECONDS`.

Started by world.py, which hands the open device over. What it costs is charged to nobody: no program is measured by
more than its own processor time. Must not know: who asks.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque

from tests.lab.forwarder import be_punctual

_ICMP_OFFSET = 20  # what the kernel sends for us carries no IP options
_AT_ONCE = 128


def reply(request: bytes) -> bytes | None:
    """The echo reply to an IPv4 echo request, None for anything else.

    Swapping the addresses keeps the header's sum; turning type 8 into 0 adds 0x0800 to that of the message.
    """
    if len(request) < _ICMP_OFFSET + 8 or request[0] != 0x45 or request[9] != 1 or request[_ICMP_OFFSET] != 8:
        return None
    total = int.from_bytes(request[22:24], "big") + 0x0800
    total = (total & 0xFFFF) + (total >> 16)
    return b"".join(
        (request[:12], request[16:20], request[12:16], b"\0\0", total.to_bytes(2, "big"), request[_ICMP_OFFSET + 4 :])
    )


def serve(tun: int, delay_s: float) -> None:
    """For ever: the process is ended from outside."""
    waiting: deque[tuple[float, bytes]] = deque()
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    while True:
        left = waiting[0][0] - time.monotonic() if waiting else None
        poll.poll(None if left is None else max(0.0, left * 1000))
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(tun, 2048)
            except BlockingIOError:
                break
            answer = reply(packet)
            if answer is not None:
                waiting.append((time.monotonic() + delay_s, answer))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            with contextlib.suppress(OSError):  # the namespace is being taken away
                os.write(tun, waiting.popleft()[1])


if __name__ == "__main__":
    be_punctual()
    serve(int(sys.argv[1]), float(sys.argv[2]))
