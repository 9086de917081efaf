"""What may happen to the frames that one host sends to another, and where the switch is told.

Must not know: namespaces, hosts, Ethernet.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ANY = "*"


@dataclass(frozen=True)
class Rule:
    """One direction: delay and jitter (uniform, to both sides) in seconds, loss and duplicates as shares of 1, rate in
    bits per second (0: unlimited) with a queue of `queue_s` seconds; what would wait longer is dropped.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    rate_bps: float = 0.0
    queue_s: float = 1.0


CUT = Rule(loss=1.0)


def tell(control: Path, **order: Any) -> dict[str, Any]:
    """Send one order to the switch; its answer, which comes after the order is in force. TimeoutError: it is dead."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
        talk.bind("")  # the kernel picks an abstract name, so that the switch can answer
        talk.settimeout(5)
        talk.connect(str(control))
        talk.send(json.dumps(order).encode())
        answer: dict[str, Any] = json.loads(talk.recv(65536))
        return answer


def set_rule(control: Path, source: str, target: str, rule: Rule) -> None:
    """From now on `rule` holds from `source` to `target` (port names, or ANY)."""
    tell(control, op="set", source=source, target=target, rule=asdict(rule))


def clear(control: Path) -> None:
    """No rule holds any more; frames already under way still arrive when they would have."""
    tell(control, op="clear")


def counters(control: Path) -> dict[str, int]:
    """Frames so far: carried, dropped, copied, and those on their way (`queued`)."""
    return {name: int(value) for name, value in tell(control, op="state").items()}
