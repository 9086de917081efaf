"""Databases of a server that was killed, damaged at random: does it start, and is what it then says true?

Two agents, six hours: the older ones in chunks, the newer ones raw, the last minutes in the log only.
Must not know: agents, rings.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import traceback
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pingmon.cli.main import run as run_pingmon
from pingmon.cli.serve import EX_CONFIG
from pingmon.config import load
from pingmon.services.bundle import Services, open_services
from pingmon.services.compaction import compactable_before_ms
from pingmon.store.rounds import StoredRound
from pingmon_agent.cli import main as run_agent
from pingmon_agent.wire.contract import status_of
from tests.support.processes import Agent, free_port, make_pki, write_agent, write_server
from tests.support.web import Session

from .agents import value_of
from .damage import Hit, hurt
from .fault import Findings
from .nursery import Nursery
from .world import EXTRA, HurtServer, Run, register

AGENTS, TARGETS, EVERY_MS, HOURS = ("agent-00", "agent-01"), 6, 5_000, 6
LOG_MS = 10 * 60_000
FILES = ("samples.db", "samples.db", "samples.db-wal", "pingmon.db")
EPOCH = "e" * 16
READY_S = 20.0
ROW_HEAD = 40  # what stands of a row before its samples: sizes, key, revision, flags, time of receipt
Told = dict[int, tuple[float | None, str | None]]  # start in ms -> rtt_ms, status


@dataclass
class Answers:
    """What a server said about all pairs: samples by what they are, and refused requests by status."""

    true: int = 0
    altered: set[tuple[str, int]] = field(default_factory=set)  # agent, start in ms
    refused: Counter[int] = field(default_factory=Counter)


class Rotten:
    """The databases as they were before any damage, and one damage after the other."""

    def __init__(self, run: Run) -> None:
        self._run, home = run, run.home / "server"
        home.mkdir()
        self.server = HurtServer(home, free_port())
        make_pki(home)
        write_server(self.server, interval_s=EVERY_MS / 1000, mesh=False, extra=EXTRA)
        register(self.server.config, list(AGENTS), TARGETS)
        self.truth: dict[tuple[str, str], Told] = {}
        self.raw: dict[tuple[str, int], bytes] = {}  # agent, start in ms -> samples as they stand in the file
        self.nursery = Nursery(home / "said", run.without)
        self._sign_in()
        self._fill(home / "whole")

    def _sign_in(self) -> None:
        link = self.server.admin("users", "create", "--admin")
        with self.nursery.program("serve", "--config", str(self.server.config)) as program:
            self.session = Session(self.server.url, self.server.ca_file)
            program.wait(READY_S, lambda: self.session.is_up("/-/ready"))
            self.session.redeem(link)
            self.session.json("/api/v1/agents")

    def _fill(self, whole: Path) -> None:
        config = load(self.server.config)
        services = open_services(config)
        now = services.clock.wall_ms()
        first, last = now - HOURS * 3_600_000, now - LOG_MS
        _write(services, self, first, last)
        before = compactable_before_ms(now)
        for part in services.rounds.compactable(before):
            while services.rounds.compact(part):
                continue
        services.close()  # all of it goes from the log into the file
        services = open_services(config)
        _write(services, self, last, now)
        shutil.copytree(self.server.data, whole, ignore=shutil.ignore_patterns("*-shm"))
        services.close()
        self.whole, file = whole, (whole / "samples.db").read_bytes()
        raw = ((key, file.find(samples), len(samples)) for key, samples in self.raw.items() if key[1] >= before)
        self._rows = {key: (at - ROW_HEAD, at + size) for key, at, size in raw if at >= 0}
        self.from_s, self.to_s = first // 1000 - 60, now // 1000 + 60

    def damaged(self, name: str, rng: random.Random) -> Hit:
        """The databases as they were, with a new damage to one file."""
        shutil.rmtree(self.server.data)
        shutil.copytree(self.whole, self.server.data)
        return hurt(self.server.data / name, rng)

    def exposed(self, hit: Hit) -> set[tuple[str, int]]:
        """Raw rounds of samples.db of whose row a byte was changed: nothing protects these."""
        return {key for key, row in self._rows.items() if hit.cut == hit.size and hit.touches(*row)}

    def ask(self) -> Answers:
        """Every pair over all the time, and its last hour, of a server that runs."""
        answers = Answers()
        for (agent, target), told in self.truth.items():
            span = f"from={self.from_s}&to={self.to_s}&step=raw"
            for path in (f"/api/v1/history/{agent}/{target}?{span}", f"/monitoring/{agent}/{target}"):
                status, body = self.session.request(path, Accept="application/json")
                if status != 200:
                    answers.refused[status] += 1
                    continue
                _compare(answers, agent, json.loads(body)["samples"], told)
        return answers

    def close(self) -> None:
        """No more servers."""
        self.nursery.close()


def _write(services: Services, rotten: Rotten, from_ms: int, to_ms: int) -> None:
    rounds = []
    for view in services.registry.agents():
        known = services.registry.snapshot.sets[view.no]
        names = [services.registry.snapshot.targets[i].name for i in known.target_ids]
        for seq in range(from_ms // EVERY_MS, to_ms // EVERY_MS):
            values = [value_of(view.hostname, target, seq) for target in range(TARGETS)]
            at = seq * EVERY_MS
            rounds.append(_round(view.no, seq, at, known.revision, values))
            rotten.raw[view.hostname, at] = array("i", values).tobytes()
            for name, value in zip(names, values, strict=True):
                rtt = value / 1000 if value >= 0 else None
                rotten.truth.setdefault((view.hostname, name), {})[at] = rtt, status_of(value)
    upto = to_ms // EVERY_MS - 1
    services.rounds.write([], {(view.no, EPOCH): upto for view in services.registry.agents()}, to_ms)
    for start in range(0, len(rounds), 100):
        services.rounds.write(rounds[start : start + 100], {}, to_ms)


def _round(agent_no: int, seq: int, at: int, revision: int, values: list[int]) -> StoredRound:
    return StoredRound(
        agent_no=agent_no, epoch=EPOCH, seq=seq, started_ms=at, revision=revision, flags=0, received_ms=at,
        samples=array("i", values),
    )  # fmt: skip


def _compare(answers: Answers, agent: str, samples: list[dict[str, Any]], told: Told) -> None:
    for sample in samples:
        at = round(sample["timestamp"] * 1000)
        if told.get(at) == (sample["rtt_ms"], sample["status"]):
            answers.true += 1
        else:
            answers.altered.add((agent, at))


def rotten_databases(run: Run, found: Findings) -> None:
    """Each damage by itself: start on it, ask for everything, let `pingmon db check` look."""
    rotten, rng, tally = Rotten(run), random.Random(f"{run.seed} databases"), Counter[str]()
    try:
        for number in range(run.scale(100, 4)):
            name = FILES[number % len(FILES)]
            hit = rotten.damaged(name, rng)
            run.journal.note(f"database {number}, {name}: {hit}")
            exposed = rotten.exposed(hit) if name == "samples.db" else set()
            unsound = name == "pingmon.db" and _unsound(rotten.server.data / name)
            code, said = _checked(run_pingmon, ["db", "check", "--config", str(rotten.server.config)])
            tally["check_found"] += code == 1
            found.require(code in (0, 1), f"`pingmon db check` after {name}, {hit}: {said[-600:]!r}")
            refusals = tally["refusals"]
            _start_on(rotten, exposed, tally, found, f"{name}, {hit}")
            refused = tally["refusals"] > refusals
            found.require(refused or not unsound, f"the server started on an unsound directory ({name}, {hit})")
    finally:
        rotten.close()
    for word in (
        "starts",
        "refusals",
        "questions_refused",
        "raw_rounds_hit",
        "starts_with_altered_raw",
        "check_found",
    ):
        found.figures[f"db_{word}"] = tally[word]
    found.require(
        run.quick or tally["starts"] > 0 < tally["refusals"], "the damage was all of one kind, so it proved little"
    )


def _unsound(database: Path) -> bool:
    """Whether SQLite complains of a file; looking at it changes nothing."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA integrity_check").fetchone()[0] != "ok")
    except sqlite3.DatabaseError:
        return True


def _start_on(rotten: Rotten, exposed: set[tuple[str, int]], tally: Counter[str], found: Findings, damage: str) -> None:
    visitor = rotten.server.visitor()
    with rotten.nursery.program("serve", "--config", str(rotten.server.config)) as program:
        code = program.wait(READY_S, lambda: visitor.is_up("/-/ready"))
        answers = rotten.ask() if code is None else Answers()
        said = program.said
    tally["starts" if code is None else "refusals"] += 1
    tally["questions_refused"] += answers.refused.total()
    tally["raw_rounds_hit"] += len(exposed)
    tally["starts_with_altered_raw"] += bool(answers.altered)
    beyond = answers.altered - exposed
    found.require(not beyond, f"{len(beyond)} rounds came back with other samples ({damage}): {sorted(beyond)[:3]}")
    if code is not None:
        sentence = code == 1 and said.count("\n") == 1 and "pingmon restore" in said
        found.require(sentence, f"the server ended with {code} and said {said[-600:]!r} ({damage})")


def rotten_settings(run: Run, found: Findings) -> None:
    """Both programs' settings, damaged, and what `config check` makes of them, as the programs' own start would."""
    rng, tally = random.Random(f"{run.seed} settings"), Counter[str]()
    home = run.home / "settings"
    home.mkdir()
    server = HurtServer(home, free_port())
    make_pki(home)
    write_server(server, interval_s=5, mesh=True, extra=EXTRA)
    agent = Agent(server, home / "agent", "probe-1")
    secret = f"pm1-{8 * '0'}-{26 * '0'}-{32 * '0'}"
    write_agent(agent, url=f"wss://127.0.0.1:{server.port}", ip_address="192.0.2.1", passphrase=secret)
    checks = {server.config: run_pingmon, agent.config: run_agent}
    whole = {file: file.read_bytes() for file in checks}
    for number in range(2 * run.scale(100, 20)):
        file = list(checks)[number % 2]
        file.write_bytes(whole[file])
        hit = hurt(file, rng)
        run.journal.note(f"settings {number}, {file.name}: {hit}")
        code, said = _checked(checks[file], ["config", "check", "--config", str(file)])
        tally["settings"] += 1
        tally["settings_refused" if code else "settings_still_valid"] += 1
        good = code == 0 or (code == EX_CONFIG and said.count("\n") == 1 and len(said) > 20)
        found.require(good, f"{file.name}, {hit}: ended with {code} and said {said[-600:]!r}")
    found.figures |= dict(tally)
    found.require(tally["settings_refused"] > 0, "no damage to settings was refused")


def _checked(command: Callable[[Sequence[str]], int], words: list[str]) -> tuple[int | str, str]:
    """Exit code of a command and what it complained of; instead of a code the end of a traceback."""
    complained = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(complained):
        try:
            return command(words), complained.getvalue()
        except Exception:  # noqa: BLE001 - a traceback is just what must not come
            return "a traceback", traceback.format_exc()
