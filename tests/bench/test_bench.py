"""The benches cannot rot: small runs of both, whose RESULT lines are read and held to what must always be true."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import peers
from .facts import OUT
from .peers import find
from .ranges import Way, figures, same_day
from .responder import reply
from .storm import worst_second
from .world import ROOT


def run(module: str, *flags: str) -> dict[str, dict[str, float]]:
    """The RESULT lines by name."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *flags], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {name: {key: float(value) for key, value in (w.split("=") for w in words)} for _, name, *words in lines}


@pytest.mark.e2e
@pytest.mark.root
def test_bench_probe_in_small() -> None:
    """A round of 20 targets costs something, loses nothing, and is compared to the peers that were run."""
    lines = run("probe", "--quick", "--sizes", "20", "--interval", "1", "--skip", "fping_burst")

    assert lines.keys() == {"probe-20"}
    found = lines["probe-20"]
    assert found["lost"] == 0
    assert 0 < found["cpu_ms_per_round"] < 1_000
    assert 10 < found["rss_mib"] < 200
    assert ("cpu_vs_fping" in found) == (find("fping") is not None)
    assert found["cpu_vs_icmplib_20ms"] > 0
    assert "cpu_vs_smokeping_prober" not in found
    assert json.loads((OUT / "probe-20.json").read_text())["result"] == found


@pytest.mark.e2e
@pytest.mark.root
def test_bench_accuracy_in_small() -> None:
    """Reported times of the agent are near the kernel's, behind 0 and 20 ms, and those of the peers are judged too."""
    lines = run("accuracy", "--quick", "--targets", "20", "--loads", "idle", "--skip", "ping", "icmplib_all")

    assert lines.keys() == {"accuracy-idle"}
    found = lines["accuracy-idle"]
    assert 0 <= found["err_p50_us"] <= found["err_p99_us"] < 5_000
    assert found["err_p50_us"] < 100
    assert ("fping_err_p99_us" in found) == (find("fping") is not None)
    assert found["icmplib_err_p99_us"] > 0


@pytest.mark.e2e
def test_bench_ingest_in_small() -> None:
    """A few thousand samples cost the server something, are all acknowledged, and the peers stand beside it."""
    lines = run("ingest", "--quick", "--targets", "50")

    assert lines.keys() == {"ingest-50"}
    found = lines["ingest-50"]
    assert 0 < found["cpu_s_per_msample"] < 1_000
    assert 0 < found["ack_p50_s"] <= found["ack_p99_s"] < 10
    assert ("cpu_vs_prometheus" in found) == (find("prometheus") is not None)
    assert ("cpu_vs_rrd" in found) == (find("rrdtool") is not None)
    assert json.loads((OUT / "ingest-50.json").read_text())["result"] == found


@pytest.mark.e2e
def test_bench_store_in_small() -> None:
    """Few targets take more room per sample than many, and less than Prometheus' blocks all the same."""
    lines = run("store", "--targets", "8")

    assert lines.keys() == {"store"}
    found = lines["store"]
    assert 0.5 < found["bytes_per_sample"] < 2.5 < 3.9 < found["raw_bytes_per_sample"]
    assert ("size_vs_prometheus" in found) == (find("promtool") is not None)
    assert found.get("size_vs_prometheus", 0) < 1
    assert json.loads((OUT / "store.json").read_text())["result"] == found


@pytest.mark.e2e
def test_bench_history_in_small() -> None:
    """A day of two agents can be read while they report, the server goes on answering, and Prometheus, which has the
    same samples (the bench itself compares every answer), stands beside it."""
    lines = run("history", "--agents", "2", "--targets", "20", "--reads", "20")

    assert lines.keys() == {"pair-1h", "pair-24h", "grid-at", "hub"}
    for name in ("pair-1h", "pair-24h", "grid-at"):
        assert 0 < lines[name]["p50_ms"] <= lines[name]["p99_ms"] < 5_000
    assert 0 < lines["hub"]["stall_max_ms"] < 5_000
    for name in ("pair-1h", "pair-24h"):
        found = lines[name]
        assert 0 < found["https_cpu_ms"] < found["https_p99_ms"] < 5_000
        assert ("p50_vs_prometheus" in found) == ("p99_vs_prometheus" in found) == (find("prometheus") is not None)
        if find("prometheus"):
            assert found["p50_vs_prometheus"] == pytest.approx(
                found["https_p50_ms"] / found["prometheus_p50_ms"], rel=0.01
            )
        assert json.loads((OUT / f"{name}.json").read_text())["result"] == found


@pytest.mark.e2e
def test_bench_fleet_storm_in_small() -> None:
    """Twenty agents come back after their server was killed, and nothing is lost, twice or changed."""
    lines = run("storm", "--quick", "--agents", "20", "--ends", "kill")

    assert lines.keys() == {"storm"}
    found = lines["storm"]
    assert found["agents"] == 20
    assert 1 <= found["worst_second"] <= 20 * 2
    assert 0 < found["listening_s"] < found["p95_back_s"] <= found["all_back_s"] < 90
    assert 0 < found["cpu_ms_per_rejoin_and_reports"] < 1_000
    assert 0 < found["ack_p99_s"] <= found["ack_max_s"] < 10
    assert (found["lost"], found["dup"], found["altered"]) == (0, 0, 0)
    whole = json.loads((OUT / "storm.json").read_text())
    assert whole["result"] == found
    assert whole["account"]["created"] == whole["account"]["stored"] > 0


def test_the_worst_second_begins_anywhere() -> None:
    """Three within a second that no tick of a clock begins; what is a whole second apart does not count."""
    assert worst_second([0.0, 0.9, 1.2, 1.85, 3.0]) == 3
    assert worst_second([1.0, 2.0, 3.0]) == 1
    assert worst_second([]) == 0


def test_bench_history_without_prometheus_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is compared then, and nothing else is missing from the figures."""
    monkeypatch.setattr(peers, "FETCHED", tmp_path)
    monkeypatch.setenv("PATH", "")
    with same_day(tmp_path / "prometheus", 1, 0) as peer:
        assert peer is None
    asked = Way(lambda _: b"", time.thread_time_ns, ms=[2.0], cpu_ms=[1.0])

    keys, _ = figures({"direct": asked, "https": asked})

    assert "note: no figures for prometheus: prometheus is missing; run" in capsys.readouterr().out
    assert keys.keys() == {"p50_ms", "p99_ms", "cpu_ms", "https_p50_ms", "https_p99_ms", "https_cpu_ms"}


def test_the_responder_answers_as_a_host_would() -> None:
    """Addresses swapped, type 0, and a checksum that is right wherever that of the request was."""
    message = bytes((8, 0, 0, 0)) + bytes(range(60))
    message = message[:2] + checksum(message) + message[4:]
    header = bytes((0x45, 0, 0, 84)) + bytes(4) + bytes((64, 1, 0, 0)) + bytes((10, 97, 0, 1)) + bytes((10, 99, 0, 7))
    answer = reply(header + message)

    assert answer is not None
    assert answer[12:20] == bytes((10, 99, 0, 7, 10, 97, 0, 1))
    assert answer[20] == 0
    assert answer[24:] == message[4:]
    assert checksum(answer[20:]) == b"\0\0"
    assert reply(answer) is None


def checksum(message: bytes) -> bytes:
    """The internet checksum; zero over a message that carries the right one."""
    total = sum(int.from_bytes(message[at : at + 2], "big") for at in range(0, len(message), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF - total).to_bytes(2, "big")
