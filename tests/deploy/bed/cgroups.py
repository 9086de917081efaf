"""A control group per host: without its own, all hosts share one payload group and kill each other's units.

Must not know: hosts, images.
"""

from __future__ import annotations

from pathlib import Path

PREFIX = "pingmon-bed-"


def roots() -> list[Path]:
    """Where groups are made: both trees of a hybrid machine that systemd uses, else the one of cgroup v2."""
    hybrid = [Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd")]
    return [tree for tree in hybrid if (tree / "cgroup.procs").exists()] or [Path("/sys/fs/cgroup")]


def own_tag() -> str:
    """A name for this bed that no other living bed has: the number of its network namespace."""
    return f"{PREFIX}{Path('/proc/self/ns/net').stat().st_ino}"


def entering(tag: str, host: str, argv: list[str]) -> list[str]:
    """`argv`, behind a step into this host's groups. Tried again, for another bed may just sweep an empty group."""
    steps = [
        f"tries=0; until mkdir -p '{tree}/{tag}/{host}' && echo 0 >'{tree}/{tag}/{host}/cgroup.procs'; "
        "do tries=$((tries + 1)); [ $tries -lt 20 ] || exit 1; sleep 0.05; done"
        for tree in roots()
    ]
    return ["sh", "-c", "; ".join([*steps, 'exec "$@"']), "sh", *argv]


def sweep(tag: str = f"{PREFIX}*") -> None:
    """Remove the empty groups of this tag; groups in use (of a bed that runs beside this one) refuse to go."""
    for tree in roots():
        for top in tree.glob(tag):
            below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
            for group in (*below, top):
                _remove(group)


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:  # in use, or another sweeper was faster
        return
