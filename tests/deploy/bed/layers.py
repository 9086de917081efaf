"""A root file system made of read-only layers and one to write to, all in memory: snapshots and rollbacks of a host.

Must not know: what is in the files.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


class Layers:
    """An overlay mounted at `place/root`; `place` must be on a tmpfs. Nothing may use the tree while it changes."""

    def __init__(self, place: Path, image: Path) -> None:
        self.place, self.root = place, place / "root"
        self.below = [image]  # newest first
        self.made = 0
        self.base = 1  # how many layers `reset` leaves
        self.root.mkdir(parents=True)
        self._mount()

    def freeze(self) -> None:
        """What was written so far can be come back to from now on."""
        self._unmount()
        self.below.insert(0, self.upper)
        self._mount()

    def freeze_base(self) -> None:
        """As `freeze`, and `reset` comes back to it."""
        self.freeze()
        self.base = len(self.below)

    def rollback(self) -> None:
        """Forget what was written since the last freeze."""
        self._unmount()
        self._delete(self.upper)
        self._mount()

    def reset(self) -> None:
        """Forget what was written since `freeze_base`, and all snapshots since then."""
        self._unmount()
        forgotten, self.below = self.below[: -self.base], self.below[-self.base :]
        self._delete(self.upper, *forgotten)
        self._mount()

    def _mount(self) -> None:
        self.made += 1
        self.upper, work = self.place / f"upper{self.made}", self.place / f"work{self.made}"
        self.upper.mkdir(mode=0o755)
        work.mkdir()
        lower = ":".join(map(str, self.below))
        options = f"lowerdir={lower},upperdir={self.upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "bed", str(self.root)], check=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", str(self.root)], check=True)

    def _delete(self, *trees: Path) -> None:
        subprocess.run(["rm", "-rf", *map(str, trees)], check=True)
