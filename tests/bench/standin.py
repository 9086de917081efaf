"""A real Socket.IO server over TLS with one mind: approve, push one target set, acknowledge everything, write it down.

`python -m tests.bench.standin CERT KEY TARGETS.json ROUNDS.jsonl`; prints its port. One line per round: seq, t, rtt.
It stands for the pingmon server, so that the agent measured does all of its work and no other process is needed.
"""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import socketio
from werkzeug.serving import make_server

from tests.support.doorkeeper import Doorkeeper

_AGENT = "/agent"
_AGENT_ID = "6f1c2f9e-0000-4000-8000-000000000001"
_ROOM = 16 << 20  # bytes; the real server grants 64 KiB
_APPROVED = {
    "state": "approved",
    "agent_id": _AGENT_ID,
    "targets_rev": 1,
    "limits": {"bytes": _ROOM, "rounds": 64, "samples": 1_000_000, "spread_s": 0},
}


class StandIn:
    """The three events of the contract."""

    def __init__(self, targets: dict[str, Any], rounds: Path) -> None:
        self.sio = socketio.Server(async_mode="threading", async_handlers=False, max_http_buffer_size=_ROOM)
        self._targets, self._file, self._upto, self._door = targets, rounds.open("w"), 0, Doorkeeper()
        self.sio.on("handshake", self.handshake, namespace=_AGENT)
        self.sio.on("monitoring_data", self.report, namespace=_AGENT)

    def handshake(self, sid: str, data: Any) -> object:
        """Approve at once; the targets follow."""
        if (challenge := self._door.challenge(data)) is not None:
            return challenge
        self._door.open(data)
        threading.Timer(0.1, self._push, [sid]).start()
        return self._door.sign({**_APPROVED, "upto": self._upto})

    def _push(self, sid: str) -> None:
        self.sio.emit("update_targets", self._door.sign_targets(self._targets), to=sid, namespace=_AGENT)

    def report(self, _: str, data: Any) -> object:
        """Write down and acknowledge."""
        for row in data["rounds"]:
            self._file.write(json.dumps({key: row.get(key) for key in ("seq", "t", "rtt", "disturbed")}) + "\n")
        self._file.flush()
        self._upto = data["rounds"][-1]["seq"]
        return {"ok": True, "upto": self._upto, "dup": 0}


def main(certificate: str, key: str, targets: str, rounds: str) -> None:
    """Serve until ended from outside."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    addresses, interval_s = json.loads(Path(targets).read_text())
    rows = [{"id": n, "name": f"t{n}", "address": address} for n, address in enumerate(addresses, 1)]
    facts = {"agent_id": _AGENT_ID, "revision": 1, "issued_at": 0, "interval_s": interval_s, "sig": ""}
    stand_in = StandIn({**facts, "targets": rows}, Path(rounds))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app = socketio.WSGIApp(stand_in.sio)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:5])
