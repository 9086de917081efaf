"""The fuzzer's finds, played back, and the fuzzer itself: `make fuzz` is worth its time if it would find something."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fuzz import CASES, Fuzz
from .judges import JUDGES, examples


@pytest.mark.parametrize("case", sorted(CASES.glob("*.case")), ids=lambda case: case.name)
def test_what_was_found_once_is_handled(case: Path) -> None:
    """The file says by its name who is to read it; it may refuse, but not fall over."""
    JUDGES[case.name.partition("-")[0]](case.read_bytes())


def test_every_judge_takes_something() -> None:
    """Examples that are refused at the door would keep the fuzzer at the door."""
    outcomes: dict[str, set[str]] = {name: set() for name in JUDGES}
    for name, data in examples():
        outcomes[name].add(str(JUDGES[name](data)))

    for name in ("handshake", "report", "legacy", "refused", "challenge"):
        assert "taken" in outcomes[name], name
    assert {"handshake", "monitoring_data", "packet 0"} <= outcomes["message"]


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    """As `make fuzz`, for three thousand inputs."""
    fuzz = Fuzz(seed=39, cases=tmp_path)
    fuzz.run(30, most=3_000)

    assert fuzz.faults == []
    assert fuzz.inputs == 3_000
    assert fuzz.outcomes > 30


def test_a_fault_is_found_and_kept(tmp_path: Path) -> None:
    """A reader that takes a list for granted: found within seconds, and the file makes it fail again."""

    def careless(data: bytes) -> None:
        if JUDGES["report"](data) == "rounds must be a list":
            raise IndexError("list index out of range")

    fuzz = Fuzz(seed=39, judges={"report": careless}, cases=tmp_path)
    fuzz.run(30, most=3_000)

    (found,) = tmp_path.iterdir()
    assert fuzz.faults == [f"{found.name}: IndexError: list index out of range"]
    with pytest.raises(IndexError):
        careless(found.read_bytes())
