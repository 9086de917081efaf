"""A program that reports like legacy agents do: plain handshake and `{target, rtt_ms, timestamp}` lists over wss.

    python -m tests.web.feeder PLAN.json INTERVAL_S

A value below zero is a lost ping, -5 (unresolved) is left out: the original contract has no word for it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import socketio

NAMESPACE = "/agent"


def connect(url: str, ca: str, agent: dict[str, Any]) -> socketio.Client:
    """An approved agent's connection; raises when the server does not take it."""
    client = socketio.Client(reconnection=True, websocket_extra_options={"sslopt": {"ca_certs": ca}})
    hello = {key: agent[key] for key in ("passphrase", "hostname")} | {"ip_address": "127.0.0.1", "version": "0.1.0"}

    def greet() -> None:
        client.emit("handshake", hello, namespace=NAMESPACE, callback=lambda _answer: None)

    client.on("connect", greet, namespace=NAMESPACE)
    client.on("*", lambda *_: {"ok": True}, namespace=NAMESPACE)
    client.connect(url, transports=["websocket"], namespaces=[NAMESPACE], wait_timeout=10)
    return client


def report(values: list[list[Any]], k: int, at: float) -> list[dict[str, Any]]:
    """One round as the original contract writes it."""
    chosen = [(target, samples[k % len(samples)]) for target, samples in values]
    return [
        {"target": target, "rtt_ms": us / 1000 if us >= 0 else None, "timestamp": at}
        for target, us in chosen
        if us != -5
    ]


def main(plan_file: str, interval: str) -> None:
    """Report until killed."""
    plan = json.loads(Path(plan_file).read_text())
    clients = [(connect(plan["url"], plan["ca"], agent), agent) for agent in plan["agents"]]
    for k in range(1_000_000):
        at = round(time.time(), 3)
        for client, agent in clients:
            if client.connected and NAMESPACE in client.namespaces:
                client.emit("monitoring_data", report(agent["values"], k, at), namespace=NAMESPACE)
        time.sleep(float(interval))


if __name__ == "__main__":
    main(*sys.argv[1:])
