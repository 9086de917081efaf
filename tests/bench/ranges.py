"""One pair over time, asked in turn: of our store by a second program, of our server and of Prometheus over HTTPS.

Both sides hold the same day, and every answer is held against the others. Must not know: how any store works.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor

from pingmon.services.history import History
from pingmon.services.timespan import Span
from tests.support.processes import Server
from tests.support.web import strict_context

from .facts import cpu_ns, percentile, spread
from .feed import INTERVAL_MS
from .past import day
from .peers import NoFiguresError
from .prometheus import METRIC, Prometheus, labels, running

BETWEEN_S = 0.02
_AGENT = "probe-0"  # whose day Prometheus holds; all agents of ours measured the same
_AT_ONCE = 120  # rounds in one request


@dataclass(frozen=True)
class Question:
    """One pair and when; Prometheus has it as `target` of its only agent."""

    agent: str
    target: str
    span: Span

    @property
    def ours(self) -> str:
        """The path to it on our server; the step comes by itself, as in a second program."""
        since, until = self.span.from_ms / 1000, self.span.to_ms / 1000
        return f"/api/v1/history/{self.agent}/{self.target}?" + urlencode({"from": since, "to": until})

    def theirs(self, function: str = "") -> str:
        """As many points of Prometheus: each looks back from the last millisecond of the step that ours stands for."""
        starts, step_ms = self.span.starts(), self.span.step_ms
        series = f'{METRIC}{{agent="{_AGENT}",target="{self.target}"}}'
        asked = {
            "query": f"{function}({series}[{step_ms}ms])" if function else series,
            "start": (starts[0] + step_ms - 1) / 1000, "end": (starts[-1] + step_ms - 1) / 1000,
            "step": step_ms / 1000,
        }  # fmt: skip
        return "/api/v1/query_range?" + urlencode(asked)


@dataclass
class Way:
    """How a question is asked, whose processor time (ns) that takes, and what each has taken so far, in ms."""

    ask: Callable[[Question], Any]
    clock_ns: Callable[[], int]
    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    body_bytes: int = 0  # of the last answer over HTTPS

    def take(self, question: Question) -> Any:
        """The answer; only asking is timed, up to its last byte."""
        before, began = self.clock_ns(), time.perf_counter()
        answer = self.ask(question)
        self.ms.append((time.perf_counter() - began) * 1000)
        self.cpu_ms.append((self.clock_ns() - before) / 1e6)
        self.body_bytes = len(answer) if isinstance(answer, bytes) else 0
        time.sleep(BETWEEN_S)
        return answer


@contextmanager
def same_day(folder: Path, targets: int, now_ms: int) -> Iterator[Prometheus | None]:
    """Prometheus with the day that `write_day` gives to every agent, of one agent, compacted; None where it is not."""
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(running(folder))
            _fill(peer, targets, now_ms)
        except NoFiguresError as err:
            print(f"note: no figures for prometheus: {err}", flush=True)
            peer = None
        yield peer


def _fill(peer: Prometheus, targets: int, now_ms: int) -> None:
    began = time.monotonic()
    series = [labels(_AGENT, f"target-{target}") for target in range(targets)]
    rounds = day(targets, now_ms)
    while part := list(islice(rounds, _AT_ONCE)):
        peer.write(series, [samples for _, samples in part], [at_ms for at_ms, _ in part])
    peer.come_to_rest()
    print(
        f"prometheus: the same day of one agent only, {targets:,} series, which favours it; "
        f"fed in {time.monotonic() - began:.0f} s", flush=True,
    )  # fmt: skip


def ways_to(server: Server, history: History, peer: Prometheus | None, hours: int) -> dict[str, Way]:
    """All that can be had. `prometheus_max` works through all samples of a step, as ours do for ten numbers each."""
    ways = {"direct": _direct(history), "https": _over_https(server)}
    if peer is not None:
        ways["prometheus"] = _of_prometheus(peer)
        if hours > 1:
            ways["prometheus_max"] = _of_prometheus(peer, "max_over_time")
    return ways


def _direct(history: History) -> Way:
    """As `pingmon history` reads: this process opens the store."""
    return Way(lambda question: history.series(question.agent, question.target, question.span), time.thread_time_ns)


def _over_https(server: Server) -> Way:
    """From our server, whose time includes what else it does meanwhile."""
    fetch = kept_open(server)
    return Way(lambda question: fetch(question.ours, "application/json"), lambda: server_cpu_ns(server))


def kept_open(server: Server) -> Callable[[str, str], bytes]:
    """A browser's connection: gets a path, accepting that kind of answer."""
    opener: Any = server.session().opener
    (jar,) = (handler.cookiejar for handler in opener.handlers if isinstance(handler, HTTPCookieProcessor))
    headers = {**dict(opener.addheaders), "Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)}
    context = strict_context(server.ca_file)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)
    return lambda path, accept: _got(connection, path, headers | {"Accept": accept})


def server_cpu_ns(server: Server) -> int:
    """Of a server that runs, so far."""
    assert server.child is not None
    return cpu_ns(server.child.process.pid)


def _of_prometheus(peer: Prometheus, function: str = "") -> Way:
    """From Prometheus: the last sample of each step, or what `function` makes of all of them."""
    return Way(lambda question: _got(peer.connection, question.theirs(function), {}), lambda: cpu_ns(peer.pid))


def _got(connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str]) -> bytes:
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, f"{path} answered {answer.status}: {body[:300]!r}"
    assert not answer.will_close, f"{path}: the connection does not stay open"
    return body


def in_turn(ways: Mapping[str, Way], questions: Iterable[Question]) -> None:
    """Every question by every way; who is asked first changes. AssertionError where two answers differ."""
    names = list(ways)
    for number, question in enumerate(questions):
        first = number % len(names)
        answers = {name: ways[name].take(question) for name in names[first:] + names[:first]}
        points = answers["direct"]["points"]
        assert json.loads(answers["https"])["points"] == points, f"{question}: the server answers differently"
        if "prometheus" in answers:
            single = question.span.step_ms == INTERVAL_MS
            _compare(question, points if single else None, "p50_ms", answers["prometheus"])
        if "prometheus_max" in answers:
            _compare(question, points, "max_ms", answers["prometheus_max"])


def _compare(question: Question, points: list[dict[str, Any]] | None, key: str, answer: bytes) -> None:
    (series,) = json.loads(answer)["data"]["result"]
    values = [None if text == "NaN" else round(float(text) * 1e6) for _, text in series["values"]]
    wanted = len(question.span.starts())
    assert len(values) == wanted, f"{question}: prometheus gives {len(values)} points instead of {wanted}"
    if points is not None:
        ours = [None if point[key] is None else round(point[key] * 1000) for point in points]
        assert values == ours, f"{question}: prometheus holds other samples"


def figures(ways: Mapping[str, Way]) -> tuple[dict[str, float], dict[str, Any]]:
    """The keys of a RESULT line, and all spreads."""
    keys: dict[str, float] = {}
    for name, way in ways.items():
        prefix = "" if name == "direct" else f"{name}_"
        keys |= {f"{prefix}p50_ms": percentile(way.ms, 0.5), f"{prefix}p99_ms": percentile(way.ms, 0.99)}
        keys |= {f"{prefix}cpu_ms": percentile(way.cpu_ms, 0.5)}
    for name in (name for name in ways if name.startswith("prometheus")):
        for which in ("p50", "p99", "cpu"):
            ours, theirs = keys[f"https_{which}_ms"], keys[f"{name}_{which}_ms"]
            keys[f"{which}_vs_{name}"] = ours / theirs
    spreads = {
        name: {"ms": spread(way.ms), "cpu_ms": spread(way.cpu_ms), "body_bytes": way.body_bytes}
        for name, way in ways.items()
    }
    return keys, spreads
