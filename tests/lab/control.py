"""Ask the running lab's network for something: `send(directory, op="down", a="lon", b="nyc")`.

ops: down, up (a, b: both directions, until `auto`), auto (back to the schedule), set (a, b, delay_ms, jitter_ms,
loss_percent: one direction), state.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any


def send(directory: Path, **message: Any) -> dict[str, Any]:
    """The answer of the lab in `directory`; OSError where none is running there."""
    mine = directory / f"control-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.bind(str(mine))
        try:
            client.sendto(json.dumps(message).encode(), str(directory / "control.sock"))
            answer: dict[str, Any] = json.loads(client.recv(65_536))
        finally:
            mine.unlink()
    return answer
