"""The test's end of pretend_server.py, and an agent process beside it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.doorkeeper import IDENTITY, PASSPHRASE

from .certificates import Leaf

PIN = IDENTITY.pin
ROOT = Path(__file__).parents[2]
AGENT_ID = "6f1c2f9e-0000-4000-8000-000000000001"
APPROVED = {
    "state": "approved",
    "agent_id": AGENT_ID,
    "upto": 0,
    "targets_rev": 1,
    "limits": {"bytes": 65536, "rounds": 64, "samples": 8000, "spread_s": 1},
}


# Faster than an agent's standard policy allows; only root may write another one.
QUICK_S = 0.2 if os.geteuid() == 0 else 1.0


def targets(*addresses: str, revision: int = 1, interval_s: float = QUICK_S) -> dict[str, Any]:
    """An update_targets payload."""
    rows = [{"id": n, "name": f"t{n}", "address": address} for n, address in enumerate(addresses, 1)]
    facts = {"agent_id": AGENT_ID, "revision": revision, "issued_at": 0, "interval_s": interval_s, "sig": ""}
    return {**facts, "targets": rows}


class PretendServer:
    """Starts the server process; `wait` for what it sees, `tell` it what to do."""

    def __init__(self, leaf: Leaf, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.agent.pretend_server", str(leaf.certificate), str(leaf.key), str(port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        self._seen: queue.Queue[dict[str, Any]] = queue.Queue()
        self._done: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait("port")["port"])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            seen = json.loads(line)
            (self._done if seen["what"] == "done" else self._seen).put(seen)

    def wait(
        self, what: str, timeout_s: float = 10.0, where: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """The next thing of this kind; other things on the way are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                seen = self._seen.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what} within {timeout_s} s") from None
            if seen["what"] == what and where(seen):
                return seen

    def nothing(self, what: str, during_s: float) -> bool:
        """True if no such thing happens for a while."""
        try:
            self.wait(what, during_s)
        except AssertionError:
            return True
        return False

    def tell(self, do: str, **order: object) -> None:
        """Give an order, and wait until it has been carried out: what comes next happens under it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        self._done.get(timeout=10)

    def freeze(self) -> None:
        """Stop it where it is: its connections stay open and nothing answers, not even a goodbye."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._reader.join(3)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class AgentProcess:
    """`pingmon-agent run` with a configuration made for the test."""

    def __init__(
        self,
        folder: Path,
        port: int,
        ca: Path,
        *flags: str,
        host: str = "127.0.0.1",
        passphrase: str = PASSPHRASE,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = ("-m", "pingmon_agent"),
        **env: str,
    ) -> None:
        """`prefix` goes before the command line (unshare, ...), `program` is what Python runs."""
        if passphrase:
            (folder / "passphrase").write_text(passphrase + "\n")
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'[server]\nurl = "wss://{host}:{port}"\nca_file = "{ca}"\npassphrase_file = "{folder}/passphrase"\n'
            f'[agent]\nhostname = "probe-1"\nstate_dir = "{folder}/state"\n'
            '[metrics]\nlisten = ""\n[probe]\nallow_loopback = true\n'
        )
        if os.geteuid() == 0:
            policy = folder / "policy.toml"
            policy.write_text("min_interval_s = 0.1\n")
            self.config.write_text(self.config.read_text() + f'policy_file = "{policy}"\n')
        self.log = folder / "agent.log"
        self._log_file = self.log.open("w")
        command = [*prefix, sys.executable, *program, "run", "--config", str(self.config), *flags]
        environment = {**os.environ, **{f"PINGMON_AGENT_{key.upper()}": value for key, value in env.items()}}
        self.process = subprocess.Popen(command, stderr=self._log_file, env=environment)

    def wait_log(self, text: str, timeout_s: float = 10.0) -> str:
        """The first log line with `text`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in self.log.read_text().splitlines():
                if text in line:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} in the log:\n{self.log.read_text()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds it took)."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(10)
        self._log_file.close()
        return code, time.monotonic() - begun
