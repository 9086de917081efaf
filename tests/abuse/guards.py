"""Every guard is shown to matter: taken out of a copy of the sources, the test that is named for it must fail.

`python -m tests.abuse.guards [NAME ...]` works in a temporary directory and ends with 1 if a guard is not missed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES, CURES = "pingmon/adapters/lines.py", "pingmon/eventlet_cures.py"


@dataclass(frozen=True)
class Guard:
    """`before` stands in `file` exactly once and becomes `after`; then `test` (a pytest -k expression) must fail."""

    name: str
    file: str
    before: str
    after: str
    test: str
    module: str = "transport"


GUARDS = (
    Guard(
        "budget", CURES, "REQUEST_BUDGET_S, self.request", "REQUEST_BUDGET_S * 9, self.request", "test_04", "patience"
    ),
    Guard("deadline", LINES, "if self._talkers[sid].since <= due", "if False", "test_05 or test_06", "patience"),
    Guard("strangers", "pingmon/gate.py", "self._by_peer.get(peer, 0) < allowed", "True", "test_03_two", "patience"),
    Guard(
        "origin", "pingmon/app.py", "cors_allowed_origins=may_come_from(config)", 'cors_allowed_origins="*"', "test_08"
    ),
    Guard("default-namespace", "pingmon/app.py", "namespaces=[NAMESPACE],", "", "test_10"),
    Guard("namespaces", LINES, "if talker.connects > MAX_CONNECTS", "if False", "test_10"),
    Guard("reserved", "pingmon/adapters/packet.py", "if data[0] in RESERVED:", "if False:", "test_11_spoofed"),
    Guard("answers", "pingmon/adapters/agent_socket.py", 'or answer.get("ok") is False', "", "test_12_broken"),
    Guard("engine-io", LINES, "data[:1] not in CLIENT_PACKETS", "False", "test_12_no_engine"),
    Guard(
        "unreadable", LINES, 'if not self._refuse(talker, "E_MALFORMED", str(error)):', "if False:", "test_12_no_socket"
    ),
    Guard("bytes", "pingmon/adapters/packet.py", "(BINARY_EVENT, BINARY_ACK) or announced", "()", "test_13"),
    Guard("fragments", CURES, "self.size > self.max_frame_length or", "", "test_14"),
    Guard("empty-fragments", CURES, "(not final and len(self.data) >= MAX_PIECES)", "False", "test_14"),
    Guard("strangers-message", LINES, "if len(data) > talker.max_bytes", "if False", "test_15_a_stranger"),
    Guard("deflate", "pingmon/adapters/entrance.py", "environ.pop(", "environ.get(", "test_16_a"),
    Guard("hixie", "pingmon/adapters/entrance.py", '!= "13"', '== "12"', "test_16_the"),
    Guard("nan", "pingmon/adapters/packet.py", "parse_constant=_refuse_constant,", "", "test_17"),
    Guard("twice", "pingmon/adapters/packet.py", "if len(found) != len(pairs):", "if False:", "test_17"),
    Guard("text", "pingmon/adapters/packet.py", "if _ESCAPED.search(text):", "if False:", "test_17"),
    Guard("rate", "pingmon/adapters/bouncer.py", "if talk.hear(self._now()):", "if True:", "test_18", "floods"),
    Guard(
        "hopeless", "pingmon/adapters/bouncer.py", "if talk.hopeless(self._now()):", "if False:", "test_18", "floods"
    ),
    Guard("packets", LINES, "if not talker.packets.take(self._now()):", "if False:", "test_18", "floods"),
    Guard("control", CURES, "if not self.controls.take(now):", "if False:", "test_18", "floods"),
    Guard("output", LINES, "if talker.overfull():", "if False:", "test_19", "floods"),
    Guard("unsent", "pingmon/gate.py", "listener.setsockopt(", "listener.getsockopt and (", "test_19", "floods"),
    Guard("failures", "pingmon/services/limits.py", "if found is None or", "if True or", "test_20_a", "floods"),
    Guard(
        "block",
        "pingmon/adapters/bouncer.py",
        "self._block(network_of(address), BLOCK_S)",
        "pass",
        "test_20_a",
        "floods",
    ),
    Guard("few-sockets", LINES, "return allowed is None or", "return True or", "test_20_few", "floods"),
    Guard(
        "reset",
        CURES,
        "except (OSError, ValueError):  # the peer",
        "except KeyError:  # the peer",
        "test_a_reset",
        "floods",
    ),
    Guard(
        "descriptors",
        CURES,
        "        if error.errno not in FULL:",
        "        raise error\n        if True:",
        "test_no_desc",
        "floods",
    ),
    Guard("room", "pingmon/gate.py", "if self.open >= self.most or", "if", "test_too_few", "floods"),
    Guard("cut", LINES, "            talker.line.cut()\n", "            pass\n", "test_41_the_connection", "revoked"),
    Guard(
        "hang-up",
        LINES,
        "self._server.start_background_task(self._farewell, talker, why)\n        self._server",
        "self._server",
        "test_41_the_connection",
        "revoked",
    ),
    Guard(
        "commit",
        "pingmon/services/ingest.py",
        "if view is None or view.state is not State.APPROVED or view.revoked:",
        "if False:",
        "test_41",
        "../server/test_revocations",
    ),
    Guard("replay", "pingmon/services/bundle.py", "registry.replay_revocations()", "[]", "test_42", "revoked"),
)


def is_missed(guard: Guard, work: Path) -> bool:
    """Whether the test fails without the guard."""
    path = work / guard.file
    whole = path.read_text()
    assert whole.count(guard.before) == 1, f"{guard.name}: {guard.before!r} stands {whole.count(guard.before)} times"
    path.write_text(whole.replace(guard.before, guard.after))
    module = f"tests/abuse/test_{guard.module}.py" if "/" not in guard.module else f"tests/abuse/{guard.module}.py"
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", module, "-k", guard.test]
    try:
        done = subprocess.run(
            argv, cwd=work, capture_output=True, text=True, timeout=240, env=os.environ | {"PYTHONPATH": ""}
        )
    finally:
        path.write_text(whole)
    assert done.returncode in (0, 1), done.stdout[-2000:]
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Try all guards, or those named; 1 if one of them is not missed."""
    chosen = [guard for guard in GUARDS if not names or guard.name in names]
    idle = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("pingmon", "pingmon_agent", "tests"):
            skip = shutil.ignore_patterns("node_modules", "__pycache__")
            shutil.copytree(ROOT / name, work / name, ignore=skip)
        for name in ("pyproject.toml", "setup.cfg"):
            shutil.copy(ROOT / name, work)
        for guard in chosen:
            missed = is_missed(guard, work)
            print(f"{'missed' if missed else 'NOT MISSED':10} {guard.name:20} {guard.test}", flush=True)
            idle += [] if missed else [guard.name]
    print(f"RESULT guards tried={len(chosen)} not_missed={len(idle)}")
    return 1 if idle else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
