"""The door to the async modes: our cures for eventlet do what they must, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import websocket
from hypothesis import given
from hypothesis import strategies as st

from pingmon.concurrency import unmask
from pingmon_agent.tls import client_context
from pingmon_agent.wire.duplex import DuplexSocket
from tests.agent.certificates import Authority

PRELUDE = "from pingmon import concurrency\nremark = concurrency.install()\n"


def run(code: str, mode: str = "eventlet") -> str:
    """Output of a fresh interpreter in which `install()` came first."""
    env = {**os.environ, "PINGMON_ASYNC_MODE": mode}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code], capture_output=True, text=True, timeout=30, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 7))
def test_unmasking_is_xor_with_the_key(data: bytes, key: bytes, offset: int) -> None:
    """Four translations give what RFC 6455 defines byte by byte."""
    assert unmask(data, key, offset) == bytes(b ^ key[(offset + i) % 4] for i, b in enumerate(data))


def test_eventlet_unmasks_with_our_function() -> None:
    """The patch is in place and agrees with what eventlet calls, for a length and an offset too."""
    code = """
from eventlet.websocket import RFC6455WebSocket as W
assert remark == "", remark
assert W._apply_mask.__qualname__.startswith("_patch_unmasking"), W._apply_mask
print(W._apply_mask(bytes(range(10)), b"\\x01\\x02\\x03\\x04", length=4, offset=1).hex())
"""
    assert run(code) == bytes(b ^ k for b, k in zip(range(4), (2, 3, 4, 1), strict=True)).hex()


def test_a_changed_eventlet_is_left_alone() -> None:
    """If eventlet's unmasking gives something else than ours, it stays and the log says so."""
    code = """
from eventlet.websocket import RFC6455WebSocket as W
W._apply_mask = staticmethod(lambda data, mask, length=None, offset=0: b"other")
print(concurrency._patch_unmasking())
assert W._apply_mask(b"", b"") == b"other"
"""
    assert run(code) == "eventlet's unmasking gives another result than ours"


@pytest.mark.parametrize("mode", ["eventlet", "gevent", "threading"])
def test_blocking_work_leaves_the_others_running(mode: str) -> None:
    """A second of C work off the hub delays no other thread by more than a moment."""
    code = """
import threading, time, sqlite3
late = []
def tick():
    for _ in range(20):
        began = time.monotonic(); time.sleep(0.01); late.append(time.monotonic() - began - 0.01)
thread = threading.Thread(target=tick); thread.start()
def work():
    db = sqlite3.connect(":memory:")
    return db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1500000)"
                      " SELECT count(*) FROM n").fetchone()[0]
print(concurrency.run_blocking(work)); thread.join(); assert max(late) < 0.2, max(late)
"""
    assert run(code, mode) == "1500000"


TALKER = """
import ssl, sys, threading, time, simple_websocket

def app(environ, start_response):
    line = simple_websocket.Server(environ)

    def talk():
        for _ in range(5000):
            line.send(b"x" * 64)
            time.sleep(0.000_02)

    talker = threading.Thread(target=talk)
    talker.start()
    heard = sum(len(line.receive(20) or b"") for _ in range(5000))
    talker.join()
    line.send(str(heard))
    line.receive(20)
    raise ConnectionError("done")

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server = concurrency.Server(app, "127.0.0.1", 0, context)
threading.Thread(target=server.run, daemon=True).start()
print(server.port, flush=True)
sys.stdin.read()
"""


def test_a_websocket_that_talks_while_it_listens_loses_nothing(tmp_path: Path) -> None:
    """5,000 messages each way at the same time, in the mode where each direction has a native thread."""
    authority = Authority(tmp_path)
    leaf = authority.issue("127.0.0.1")
    argv = [sys.executable, "-c", f"{PRELUDE}{TALKER}", str(leaf.certificate), str(leaf.key)]
    env = {**os.environ, "PINGMON_ASYNC_MODE": "threading"}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        plain = socket.create_connection(("127.0.0.1", int(server.stdout.readline())), timeout=20)
        tls = client_context(str(authority.file)).wrap_socket(plain, server_hostname="127.0.0.1")
        duplex = DuplexSocket(tls)
        line = websocket.create_connection("wss://127.0.0.1", socket=duplex)

        def talk() -> None:
            for _ in range(5000):
                line.send_bytes(b"y" * 64)
                time.sleep(0.000_02)  # so that either end waits for bytes again and again

        talker = threading.Thread(target=talk)
        talker.start()
        heard = sum(len(line.recv()) for _ in range(5000))
        talker.join(20)
        told = line.recv()
        line.close()
        duplex.release()
        server.stdin.close()

    assert (heard, told) == (320_000, "320000")


def test_logging_from_native_threads_does_not_stop_the_process() -> None:
    """The safety net under the rule: handlers made before and after the patch have native locks."""
    code = """
import io, logging, threading
handler = logging.StreamHandler(io.StringIO()); logging.getLogger().addHandler(handler)
def job(i):
    def work():
        logging.getLogger().warning("from a native thread %d", i)
        return i
    results.append(concurrency.run_blocking(work))
results = []
threads = [threading.Thread(target=job, args=(i,)) for i in range(12)]
for thread in threads: thread.start()
for _ in range(50): logging.getLogger().warning("from the hub")
for thread in threads: thread.join()
print(sorted(results) == list(range(12)))
"""
    assert run(code) == "True"


def test_an_unknown_mode_is_refused() -> None:
    """A typo in the variable is a configuration error with the right words."""
    done = subprocess.run(
        [sys.executable, "-m", "pingmon", "serve"],
        capture_output=True,
        text=True,
        env={**os.environ, "PINGMON_ASYNC_MODE": "evenlet"},
    )

    assert done.returncode == 78
    assert done.stderr == ("pingmon: PINGMON_ASYNC_MODE='evenlet' is no mode; use one of eventlet, gevent, threading\n")


def test_other_commands_need_no_green_threads() -> None:
    """`pingmon agents list` and its like start without eventlet, Flask and the rest of the server."""
    code = """import sys; import pingmon.cli.main
print(sorted({'eventlet', 'flask_socketio', 'socketio'} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done.stderr
