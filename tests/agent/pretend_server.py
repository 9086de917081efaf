"""A small real Socket.IO server over TLS, driven line by line: `python -m tests.agent.pretend_server CERT KEY PORT`.

Reads JSON commands from stdin, writes what it sees as JSON lines to stdout. It has no mind of its own: the test says
how the next handshakes and reports are answered. Runs in a process of its own, as a server does.
"""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from typing import Any

import socketio

from pingmon.concurrency import Server
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import Handshake
from tests.support.doorkeeper import Doorkeeper

AGENT = "/agent"
_say_lock = threading.Lock()


def say(what: str, **facts: object) -> None:
    """One line for the test."""
    with _say_lock:
        print(json.dumps({"what": what, **facts}), flush=True)


class Pretend:
    """Answers by script and tells all; what it answers is sealed and signed as a server's words are."""

    def __init__(self) -> None:
        self.sio = socketio.Server(async_mode="threading", async_handlers=False, ping_interval=5, ping_timeout=5)
        self.handshake_answer: Any = {"state": "pending", "registration_id": "r", "retry_after_s": 60}
        self.answer_handshakes = self.answer_reports = True
        self.report_answer: Any = None
        self.upto = 0
        self.epochs: dict[str, int] = {}  # upto by epoch, once any is known
        self.sid = ""
        self.door = Doorkeeper()
        self.sealed, self.altered = True, {}  # whether it speaks the sealed exchange; what is forged in its challenge
        self.sio.on("connect", self.connected, namespace=AGENT)
        self.sio.on("disconnect", lambda sid, *_: say("disconnect"), namespace=AGENT)
        self.sio.on("handshake", self.handshake, namespace=AGENT)
        self.sio.on("monitoring_data", self.report, namespace=AGENT)

    def connected(self, sid: str, environ: dict[str, Any], *_: object) -> None:
        """Remember the last client."""
        self.sid = sid
        say("connect", origin=environ.get("HTTP_ORIGIN"))

    def handshake(self, sid: str, data: dict[str, str]) -> object:
        """A challenge first, then the answer as told. The test hears of what came sealed as if it had come plain."""
        say("raw", passphrase=data["passphrase"])
        if not self.sealed:
            say("handshake", data=data, answer=self.handshake_answer)
            return self.handshake_answer
        if self.answer_handshakes and (challenge := self.door.challenge(data)) is not None:
            return challenge | self.altered
        answer, answers = self.handshake_answer, self.answer_handshakes  # before the test hears of it
        plain = self.opened(data) if answers else data
        say("handshake", data=plain, answer=answer)
        if not answers:
            raise RuntimeError("no answer, as told")
        if answer and answer.get("state") == "approved":
            epoch = str(codec.decode_handshake(plain).epoch)
            answer = {**answer, "upto": self.epochs.get(epoch, 0 if self.epochs else self.upto)}
        return self.door.sign(answer)

    def opened(self, data: dict[str, str]) -> dict[str, Any]:
        """The plain form of a handshake; `passphrase` is "key" where it was a login."""
        proof = self.door.open(data)
        facts = {"epoch": proof.ext["epoch"], "next_seq": proof.ext["next"], "sent_ms": proof.ext["clk"]}
        return codec.encode_handshake(Handshake(**{**data, "passphrase": proof.passphrase or "key"}, **facts))

    def report(self, sid: str, data: Any) -> object:
        """Commit, or answer as told."""
        answers = self.answer_reports
        say("report", data=data)
        if not answers:
            raise RuntimeError("no acknowledgement, as told")
        if self.report_answer is not None:
            answer, self.report_answer = self.report_answer, None
            return answer
        self.upto = self.epochs[data["epoch"]] = data["rounds"][-1]["seq"]
        return {"ok": True, "upto": self.upto, "dup": 0}

    def command(self, order: dict[str, Any]) -> None:
        """One order of the test."""
        match order.pop("do"):
            case "set":
                for key, value in order.items():
                    setattr(self, key, value)
            case "push":
                body = order["body"] if order.get("raw") else self.door.sign(order["body"])
                self.sio.emit("handshake", body, to=self.sid, namespace=AGENT)
            case "targets":
                ack = lambda *answer: say("targets_ack", data=answer)  # noqa: E731
                signed = self.door.sign_targets(order["body"])
                self.sio.emit("update_targets", signed, to=self.sid, namespace=AGENT, callback=ack)
            case "kick":
                self.sio.disconnect(self.sid, namespace=AGENT)
        say("done")


def main() -> None:
    """Serve until stdin ends."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    pretend = Pretend()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server = Server(socketio.WSGIApp(pretend.sio), "127.0.0.1", int(sys.argv[3]), context)
    threading.Thread(target=server.run, daemon=True).start()
    say("port", port=server.port)
    for line in sys.stdin:
        pretend.command(json.loads(line))


if __name__ == "__main__":
    main()
