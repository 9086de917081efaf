"""`make bench-ingest`: what a million samples cost the whole server, Prometheus and rrdcached, side by side in one run.

Ours: real websockets over TLS, one report per agent and round, acknowledged after commit. Only the stores' own
processor time counts. Must not know: how any store works.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pingmon_agent.config import Server as ServerSection
from pingmon_agent.link import Link
from pingmon_agent.tls import client_context
from pingmon_agent.wire import codec
from pingmon_agent.wire.contract import EVENT_DATA, EVENT_HANDSHAKE, Handshake, Report, Round
from tests.support.processes import Server, running_server, wait_for

from .facts import cpu_ns, machine, memory_mib, percentile, publish, spread, version_of
from .feed import Feed
from .peers import NoFiguresError, find
from .stores import prometheus, rrdcached, rrdtool

_PATIENCE_S = 60.0
EPOCH = "00000000000000be"
QUICK = {"agents": 4, "rounds": 30, "rrd_rounds": 10}
FULL = {"agents": 20, "rounds": 120, "rrd_rounds": 20}


class Reporter:
    """One agent that has measured already, and reports round by round; `waits` = seconds until each acknowledgement."""

    def __init__(self, server: Server, number: int, feed: Feed, passphrase: str) -> None:
        self.name, self._feed, self._number = f"probe-{number}", feed, number
        self.waits: list[float] = []
        self._link = Link()
        section = ServerSection(
            url=server.url.replace("https", "wss"), ca_file=str(server.ca_file), passphrase_file="-"
        )
        self._link.open(section, client_context(section.ca_file))
        hello = Handshake(
            passphrase=passphrase, hostname=self.name, ip_address="127.0.0.1", version="1", epoch=EPOCH, next_seq=1
        )
        self._link.emit(EVENT_HANDSHAKE, codec.encode_handshake(hello), "answer")

    def take_targets(self) -> None:
        """Wait until it is approved and knows what it has measured."""
        while True:
            message = self._link.inbox.get(timeout=_PATIENCE_S)
            if message.kind == "targets" and message.reply is not None:
                self._revision = message.body["revision"]
                message.reply.put({"ok": True, "revision": self._revision, "refused": []})
                return

    def report(self) -> None:
        """All rounds, one after the other."""
        for number in range(self._feed.rounds):
            self._send(number, self._feed.time_ms(number))

    def send_now(self, number: int) -> None:
        """One round that has just been measured; `number` counts from 0, samples repeat once the feed is through."""
        self._send(number, time.time_ns() // 1_000_000)

    def _send(self, number: int, started_ms: int) -> None:
        samples = self._feed.column(self._number, number % self._feed.rounds)
        measured = Round(epoch=EPOCH, seq=number + 1, started_ms=started_ms, revision=self._revision, samples=samples)
        began = time.monotonic()
        self._link.emit(EVENT_DATA, codec.encode_report(Report(epoch=EPOCH, rounds=(measured,))), "ack")
        answer = self._link.inbox.get(timeout=_PATIENCE_S)
        self.waits.append(time.monotonic() - began)
        if answer.kind != "ack" or not answer.body.get("ok"):
            raise NoFiguresError(f"the server answered {answer.kind} {answer.body}")

    def close(self) -> None:
        """Hang up."""
        self._link.close()


def pingmon(feed: Feed, folder: Path, notes: dict[str, Any]) -> float:
    """CPU seconds of `pingmon serve` for all samples, from the first report to the last acknowledgement."""
    with running_server(folder, interval_s=5) as server:
        lines = "".join(f"target-{t},198.18.{t // 250}.{t % 250 + 1}\n" for t in range(feed.targets))
        (folder / "targets").write_text(lines)
        server.admin("targets", "import", str(folder / "targets"))
        passphrase = server.legacy_passphrase("bench", "--uses", str(feed.agents))
        reporters = [Reporter(server, number, feed, passphrase) for number in range(feed.agents)]
        names = [reporter.name for reporter in reporters]
        wait_for(lambda: all(server.agent_state(name) for name in names), "all agents to register")
        server.admin("agents", "approve", *names)
        assert server.child is not None
        pid = server.child.process.pid
        try:
            for reporter in reporters:
                reporter.take_targets()
            time.sleep(1.0)  # the browsers' first picture and the like are not part of it
            before = cpu_ns(pid)
            with ThreadPoolExecutor(len(reporters)) as pool:
                for done in [pool.submit(reporter.report) for reporter in reporters]:
                    done.result()
            used = (cpu_ns(pid) - before) / 1e9
            waits = [wait for reporter in reporters for wait in reporter.waits]
            notes["ack_p50_s"], notes["ack_p99_s"] = statistics.median(waits), percentile(waits, 0.99)
            notes["rss_mib"] = memory_mib(pid)["rss_mib"]
        finally:
            for reporter in reporters:
                reporter.close()
    return used


def measure(targets: int, sizes: dict[str, int], passes: int, skip: set[str]) -> None:
    """One RESULT line."""
    notes: dict[str, Any] = {}
    per_million: dict[str, list[float]] = {}
    stores: dict[str, Callable[[Feed, Path], float]] = {
        "pingmon": lambda feed, folder: pingmon(feed, folder, notes),
        "prometheus": prometheus,
        "rrd": rrdtool,
        "rrdcached_alone": rrdcached,
    }
    Feed(sizes["agents"], targets, sizes["rounds"], 0).make()
    for number in range(passes):
        for name in [name for name in stores if name not in skip]:
            feed = Feed(
                sizes["agents"], targets, sizes["rrd_rounds" if name.startswith("rrd") else "rounds"], _now_ms()
            )
            try:
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    seconds = stores[name](feed, Path(folder))
            except NoFiguresError as err:
                print(f"note: no figures for {name}: {err}", flush=True)
                skip.add(name)
                continue
            per_million.setdefault(name, []).append(seconds / feed.samples * 1e6)
            print(
                f"pass {number + 1}: {name} {feed.samples:,} samples, {seconds:.2f} CPU s, "
                f"{per_million[name][-1]:.3f} per million", flush=True,
            )  # fmt: skip
    median = {name: statistics.median(values) for name, values in per_million.items()}
    keys = {"cpu_s_per_msample": median["pingmon"]}
    keys |= {f"cpu_vs_{name}": median["pingmon"] / median[name] for name in median if name != "pingmon"}
    details = {
        "machine": machine(), "sizes": sizes, "notes": notes,
        "cpu_s_per_msample": {name: spread(values) for name, values in per_million.items()},
        "versions": {name: version_of(path, "--version") for name in ("prometheus",) if (path := find(name))},
    }  # fmt: skip
    publish(f"ingest-{targets}", keys | notes, details)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten")
    parser.add_argument("--targets", type=int, nargs="+", default=[200, 1000], help="per report")
    parser.add_argument("--skip", nargs="*", default=[], choices=["prometheus", "rrd", "rrdcached_alone"])
    args = parser.parse_args()
    sizes = QUICK if args.quick else FULL
    skip = set(args.skip)
    for targets in args.targets:
        measure(targets, sizes, 1 if args.quick else 3, skip)


if __name__ == "__main__":
    main()
