"""The passphrase as it lies on this host: who else can read it, and whether it is systemd's.

A unit with `LoadCredential=passphrase:...` finds it in its own read-only directory, for each of its starts anew; nobody
outside of the unit need be able to look there. Must not know: what the passphrase is for.
"""

from __future__ import annotations

import os
from pathlib import Path

from .config import Config, load

_PLACE = Path("/run/credentials")


def by_systemd(file: Path) -> bool:
    """Whether `file` is a credential that systemd gives to this or another unit."""
    own = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return file.is_relative_to(_PLACE) or (bool(own) and file.is_relative_to(own))


def load_here(path: Path) -> Config:
    """The configuration as far as it can be seen from here: outside of its unit, a credential is not. Raises
    ConfigError."""
    config = load(path, enrolled=False)
    return config if hidden(config) else load(path)


def hidden(config: Config) -> bool:
    """Whether the passphrase is a credential that is not there for this process."""
    file = Path(config.server.passphrase_file)
    return by_systemd(file) and not file.exists()


def open_to_others(config: Config) -> str | None:
    """A sentence if others on this host can read the passphrase, else None."""
    file = Path(config.server.passphrase_file)
    # systemd lets the unit's user read a credential by an access list, whose mask looks like a right of the group.
    if config.passphrase and not by_systemd(file) and file.stat().st_mode & 0o077:
        return f"others on this host can read the passphrase in {file}; run `chmod 600 {file}`"
    return None
