"""`make lab` = `python -m tests.lab`: checks the host, takes the port, starts everything else in namespaces of its own.

    python -m tests.lab [--port 8443] [--dir .lab] [--topology FILE] [--interval 5] [--calm]
    python -m tests.lab [--dir .lab] down lon-nyc | up lon-nyc | auto | state

Nothing of the lab can outlive this process: the kernel ends the namespaces' first process, and with it all others.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from pingmon.cli.children import die_with

from . import control, inside, topology

MARK = ".pingmon-lab"  # in a directory that the next lab may empty
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


class RefusedError(Exception):
    """The lab cannot run here; the text says what to do."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make lab", description="a mesh of agents in network namespaces")
    parser.add_argument("--port", type=int, default=8443, help="where the developer's browser finds it on 127.0.0.1")
    parser.add_argument("--dir", type=Path, default=Path(".lab"), help="state of the lab; emptied at start and end")
    parser.add_argument("--topology", type=Path, default=topology.DEFAULT, help="cities and paths")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between rounds")
    parser.add_argument("--calm", action="store_true", help="no jitter, no loss, no scheduled outage")
    parser.add_argument("--inside", nargs=2, type=int, metavar=("LISTENER", "STOP"), help=argparse.SUPPRESS)
    parser.add_argument("verb", nargs="?", choices=["run", "down", "up", "auto", "state"], default="run")
    parser.add_argument("path", nargs="?", help="for down and up: two cities, as lon-nyc")
    return parser.parse_args()


def check_host() -> None:
    """Raises RefusedError where the lab cannot work."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise RefusedError("make lab needs Linux and root, for its network namespaces: run `sudo make lab`.")
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            raise RefusedError(
                f"make lab needs the program {program}: run `apt-get install {package}`, then make lab again."
            )
    if not Path("/dev/net/tun").exists():
        raise RefusedError("make lab needs /dev/net/tun: run `modprobe tun`, or give this container that device.")


def take_directory(directory: Path) -> int:
    """Empty the lab's directory of whatever a killed lab left; the lock that keeps a second lab out."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(
            f"a lab is running in {directory}: stop it, or give this one its own --dir and --port."
        ) from None
    if any(directory.iterdir()) and not (directory / MARK).exists():
        raise RefusedError(f"{directory} is not empty and no lab's: give --dir a directory of its own.")
    empty(directory)
    (directory / MARK).touch()
    return lock


def empty(directory: Path) -> None:
    """Remove what is in the directory, not the directory (the lock is on it)."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def take_port(port: int) -> socket.socket:
    """The listener for the developer's browser, in the host's network."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # not error.strerror: create_server puts the address into that
        raise RefusedError(
            f"port {port} of 127.0.0.1 cannot be had ({why}): stop what holds it (`ss -ltnp` shows it), "
            f"or choose another with `make lab PORT={port + 1}`."
        ) from None


def run_outside(args: argparse.Namespace) -> int:
    """Start the namespaces, wait, clean up; the exit code."""
    check_host()
    topology.load(args.topology)
    lock = take_directory(args.dir)
    listener = take_port(args.port)
    stopped, stop = os.pipe()
    handles = (str(listener.fileno()), str(stopped))
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    process = subprocess.Popen(
        [*UNSHARE, sys.executable, "-m", "tests.lab", *sys.argv[1:], "--inside", *handles],
        pass_fds=(listener.fileno(), stopped),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - there is one thread
    )
    listener.close()
    os.close(stopped)
    while process.poll() is None and not done.wait(0.2):
        pass
    os.close(stop)
    code = finish(process)
    empty(args.dir)
    os.close(lock)
    args.dir.rmdir()
    return code


def finish(process: subprocess.Popen[bytes]) -> int:
    """Give the lab ten seconds to stop by itself; then end it."""
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 1


def run_inside(args: argparse.Namespace) -> int:
    """The first process of the namespaces."""
    world = topology.load(args.topology)
    order = inside.Order(args.dir, args.port, args.interval, world.calm() if args.calm else world)
    handle, stop = args.inside
    return inside.run(order, socket.socket(fileno=handle), stop)


def command(args: argparse.Namespace) -> int:
    """down, up, auto, state: talk to the running lab."""
    if args.verb == "state":
        print(inside.say_state(args.dir))
        return 0
    ends = {}
    if args.verb in ("down", "up"):
        a, b, _ = topology.split(topology.load(args.topology).cities, args.path or "")
        ends = {"a": a, "b": b}
    answer = control.send(args.dir, op=args.verb, **ends)
    if not answer["ok"]:
        raise RefusedError(answer["message"])
    return 0


def main() -> int:
    """Exit code 0: done; 1: refused or failed, with a sentence on stderr."""
    args = arguments()
    try:
        args.dir = args.dir.resolve()
        if args.inside:
            return run_inside(args)
        return run_outside(args) if args.verb == "run" else command(args)
    except (RefusedError, topology.TopologyError) as refusal:
        print(refusal, file=sys.stderr)
    except (FileNotFoundError, ConnectionRefusedError):
        print(f"no lab is running in {args.dir}: start one with `make lab`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
