"""An agent that nobody here wrote: npm `socket.io-client` in a Node process, led by a test through foreign.mjs."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import Server

Json = dict[str, Any]
HERE = Path(__file__).parent
FRONTEND = HERE.parents[1] / "pingmon" / "frontend"
ANSWER_S = 10.0
BYTES: Json = {"binary": 4}


def node_command() -> list[str]:
    """Node, foreign.mjs and where its library is; AssertionError with what to do where one of them is missing."""
    node = shutil.which("node") or shutil.which("node", path=str(HERE.parents[1] / ".venv" / "bin"))
    library = FRONTEND / "node_modules" / "socket.io-client" / "package.json"
    if node is None or not library.is_file():
        missing = "node" if node is None else "socket.io-client"
        raise AssertionError(f"{missing} is not installed; run `make frontend`, which installs it, then test again")
    return [node, str(HERE / "foreign.mjs"), str(FRONTEND / "package.json")]


class ForeignAgent:
    """One connection. What happens to it is kept in order; each `wait` takes out the first thing that fits."""

    def __init__(self, url: str, ca_file: Path, transport: str = "websocket") -> None:
        # It ends with its standard input, so it cannot outlive this process.
        self._process = subprocess.Popen(
            [*node_command(), url, str(ca_file), transport],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._happened: queue.Queue[Json] = queue.Queue()
        self.seen: list[Json] = []
        self._asked = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._happened.put(json.loads(line))

    def _write(self, command: Json) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def wait(self, what: str, fits: Callable[[Json], bool], deadline_s: float = ANSWER_S) -> Json:
        """The first thing not waited for yet that fits; AssertionError after the deadline."""
        end = time.monotonic() + deadline_s
        while True:
            found = next((thing for thing in self.seen if fits(thing)), None)
            if found is not None:
                self.seen.remove(found)
                return found
            try:
                self.seen.append(self._happened.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"waited {deadline_s:g} s for {what}; there was only {self.seen}") from None

    def happening(self, kind: str, deadline_s: float = ANSWER_S) -> Json:
        """`connect`, `connect_error` or `disconnect`."""
        return self.wait(kind, lambda thing: thing["happened"] == kind, deadline_s)

    def event(self, name: str, deadline_s: float = ANSWER_S) -> Json:
        """The argument of the next event `name`."""
        thing = self.wait(f"the event {name}", lambda t: t["happened"] == "event" and t["event"] == name, deadline_s)
        assert len(thing["args"]) == 1, thing
        return dict(thing["args"][0])

    def ask(self, event: str, *arguments: object) -> Json:
        """Emit with acknowledgement and return what it was answered."""
        self._asked += 1
        number = self._asked
        self._write({"emit": [event, *arguments], "ask": number})
        return dict(self.wait(f"an answer to {event}", lambda thing: thing.get("ask") == number)["answer"])

    def say(self, event: str, *arguments: object) -> None:
        """Emit without asking for an acknowledgement."""
        self._write({"emit": [event, *arguments], "ask": None})

    def send_raw(self, *data: object) -> None:
        """Send an event packet with exactly this data, reserved names included; `BYTES` makes it a binary packet."""
        self._write({"raw": list(data)})

    def send_text(self, text: str) -> None:
        """Send this as the whole message, whatever it is."""
        self._write({"text": text})

    def acknowledge_with(self, answer: object) -> None:
        """Answer events of the server with this from now on, where it asks for an acknowledgement."""
        self._write({"acknowledge": answer})

    def nothing_more(self, name: str, within_s: float) -> None:
        """AssertionError if an event `name` comes within this time."""
        end = time.monotonic() + within_s
        while (rest := end - time.monotonic()) > 0:
            try:
                self.seen.append(self._happened.get(timeout=rest))
            except queue.Empty:
                break
        came = [thing for thing in self.seen if thing.get("event") == name]
        assert not came, f"the event {name} came unasked: {came}"

    def close(self) -> None:
        """End the process; the server sees the connection go."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()


@contextmanager
def foreign_agent(server: Server) -> Iterator[ForeignAgent]:
    """A stranger that has joined the namespace /agent of `server` and said nothing yet."""
    agent = ForeignAgent(f"{server.url}/agent", server.ca_file)
    try:
        agent.happening("connect")
        yield agent
    finally:
        agent.close()


def hello(passphrase: str, hostname: str, ip_address: str = "192.0.2.10", version: str = "0.9-foreign") -> Json:
    """The payload of `handshake` as the original contract has it."""
    return {"passphrase": passphrase, "hostname": hostname, "ip_address": ip_address, "version": version}
