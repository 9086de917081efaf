"""Fault 27: files of agents and server are damaged at random places: rings, logs, databases, settings."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

from pingmon.store.rounds import SqliteRounds
from pingmon_agent import segments
from pingmon_agent.journal import Journal
from pingmon_agent.ring import Ring

from .agents import Fleet, SimAgent
from .apart import RING_BYTES
from .damage import blocks_in, hurt
from .fault import Fault, Findings
from .guards import AFTER_ACK
from .guards import weaken as forget
from .lives import Lives
from .oracle import Key, Stored, Verdict, read_logs
from .rotten import rotten_databases, rotten_settings
from .world import TARGETS, Run, World

AWAY_S = 150  # three segments of a minute, and a part of one


def run(run: Run) -> Findings:
    """Each kind of file by itself and beside the others; one account of all samples."""
    found = Findings()
    weaken(run)
    # Processes of their own: a part forks, another has a thread for each agent.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        logs, databases = pool.submit(rotten_logs, part(run, "logs")), pool.submit(rotten, part(run, "databases"))
        verdict = Rings(part(run, "rings"), found).happen()
        for others in (logs.result(), databases.result()):
            found.figures |= others.figures
            found.problems += others.problems
            verdict += others.verdict or Verdict.nothing()
    return found.close(verdict, allowed=True)


def rotten(run: Run) -> Findings:
    """What is at the server, and both programs' settings."""
    found = Findings()
    rotten_databases(run, found)
    rotten_settings(run, found)
    return found


def weaken(run: Run) -> None:
    """Take away what `run.without` names; a fault has a process of its own."""
    if run.without == "block-crc":
        segments._whole = _whole_by_length
    if run.without == "next-block":
        segments._blocks = partial(_up_to_damage, segments._blocks)


def _whole_by_length(view: memoryview, begin: int) -> int:
    """A block is what its length says."""
    _, length, _ = segments._FRAME.unpack_from(view, begin) if begin + segments._FRAME.size <= len(view) else (0, 0, 0)
    after = begin + segments._FRAME.size + int(length)
    return after if length >= segments._BODY.size and after <= len(view) else 0


Blocks = Iterator[tuple[int, int, segments.Block]]


def _up_to_damage(blocks: Callable[[bytes, int], Blocks], data: bytes, start: int) -> Blocks:
    """A file ends where the first block is damaged."""
    for begin, after, block in blocks(data, start):
        if begin != start:
            return
        yield begin, after, block
        start = after


def part(run: Run, name: str) -> Run:
    """The same run in a folder of its own, as the side logs of a world are."""
    (run.home / name).mkdir()
    return replace(run, home=run.home / name)


class Rings:
    """Agents that measure without a server, end, and begin again on rings of which one file each is damaged."""

    def __init__(self, run: Run, found: Findings) -> None:
        self._run, self._found = run, found
        self._rng = random.Random(f"{run.seed} rings")
        self._folder = run.home / "files"
        self._spoilt: set[Key] = set()
        self._torn: set[str] = set()  # agents whose ring has a block that is there in part, or with other bytes
        self._journals: dict[str, Journal] = {}

    def happen(self) -> Verdict:
        """All of it, up to the oracle's word."""
        count = self._run.scale(100, 10)
        with World(self._run, agents=count, offset_s=-4.0 * AWAY_S, ring_of=self._ring) as world:
            world.start(settle_s=1.0)
            world.stop_server()
            world.fleet.fast_forward(AWAY_S)
            world.fleet.stop()
            for name in world.names:
                self._damage(name)
            self._spoilt -= {row.key for row in Stored(world.server.data).rows}
            self._begin_again(world)
            world.start_server()
            world.fleet.start(world.address(), self._run.seed)
            world.fleet.wait_back()
            world.fleet.drain()
            world.stop_server()
            verdict = world.verdict(damaged=frozenset(self._spoilt))
        self._judge(verdict, count)
        return verdict

    def _ring(self, name: str) -> Callable[..., Ring]:
        (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._journals[name] = Journal(self._folder / name, RING_BYTES)
        return partial(Ring, journal=self._journals[name])

    def _damage(self, name: str) -> None:
        file = self._rng.choice(sorted((self._folder / name).iterdir()))
        blocks = list(blocks_in(file)) if file.suffix == ".ring" else []
        hit = hurt(file, self._rng)
        spoilt = [b for b in blocks if hit.touches(b.begin, b.end)]
        self._spoilt |= {(name, b.epoch, b.seq) for b in spoilt if b.is_round}
        if any(hit.touches(b.begin, b.end) and b.begin != hit.cut for b in blocks if b.begin <= hit.cut):
            self._torn.add(name)
        self._run.journal.note(f"ring of {name}, {file.name}: {hit}, {len(spoilt)} blocks of it")

    def _begin_again(self, world: World) -> None:
        made = [SimAgent(n, world.timeline, self._run.home, world.pin, self._ring(n)) for n in world.names]
        world.fleet = Fleet(made, world.timeline, self._run.journal)

    def _judge(self, verdict: Verdict, count: int) -> None:
        found, told = self._found, read_logs(self._run.home).gave_up.keys()
        uncounted = sorted(name for name in self._torn if not self._journals[name].counts.damaged)
        found.figures |= {
            "rings": count,
            "rings_torn": len(self._torn),
            "rounds_in_damaged_blocks": len(self._spoilt),
            "told_as_gap": len(self._spoilt & told),
        }
        found.require(not uncounted, f"the agents {uncounted} did not count the damage to their rings")
        found.require(
            verdict.allowed == TARGETS * len(self._spoilt),
            f"{verdict.allowed} samples are missing, {TARGETS * len(self._spoilt)} lay in damaged blocks",
        )


def rotten_logs(run: Run) -> Findings:
    """Live for a moment, be killed, lose some of the log, live on with what is left of it."""
    lives, rng, tally = Lives(run, agents=4, spacing_s=0.1, batch=16), random.Random(f"{run.seed} logs"), Counter[str]()
    forget(run, lives.agents.values())
    while tally["logs"] < run.scale(100, 4):
        with lives.life(SqliteRounds) as life:
            lives.pump(life, rng.uniform(0.05, 0.2))
            life.kill()
        log = lives.data / "samples.db-wal"
        if not log.exists() or not log.stat().st_size:
            continue
        run.journal.note(f"log {tally['logs']}: {hurt(log, rng)}")
        stored = Stored(lives.data, content=False)
        tally["logs"] += 1
        tally["logs_unsound"] += bool(stored.complaint)
        tally["rounds_rolled_back"] += lives.acked_early()
    lives.measure(1)  # with which an agent says what it has given up
    lives.drain()
    found = Findings(lives.verdict(), {key: float(count) for key, count in tally.items()})
    found.require(not tally["logs_unsound"], f"integrity_check complained after {tally['logs_unsound']} damages")
    found.require(tally["rounds_rolled_back"] > 0, "no damage took an acknowledged round back, so none proved anything")
    return found


FAULT = Fault(
    number=27,
    title="corrupt files",
    inject="one to four bytes changed, or the end cut off, at random places: a file each of 100 agents' rings, the log "
    "of samples.db of a server that was killed 100 times, each of a killed server's databases and their log 100 times, "
    "both programs' settings 100 times",
    passes="of a ring exactly the rounds in damaged blocks are missing, and the agent counts them; what a log has lost "
    "is sent again; a server with damaged databases starts, or refuses in one sentence that names `pingmon restore`; "
    "damaged settings: exit code 78 and a sentence, or settings that are still valid.",
    run=run,
    guards={
        "block-crc": "an agent takes blocks of its ring by their length, whatever their CRC",
        "next-block": "an agent reads no further than the first damaged block of a file",
        "tile-crc": "the server reads chunks whatever their checksums",
        **AFTER_ACK,
    },
    short="identity keys are damaged in tests/abuse; samples in raw rows of samples.db, those of the last hour or two, "
    "have no checksum: what comes of a byte changed just there is a figure, not a failure (see below the table).",
)
