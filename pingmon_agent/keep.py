"""What an agent keeps of who it is and whom it trusts: its key, the pin of its server, its passphrase until approved.

All in `agent.state_dir`, but the passphrase, which is where the configuration says. Must not know: messages, sockets.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .config import IDENTITY_FILE, PIN_FILE, Config
from .credential import by_systemd
from .log import say
from .wire.keyfile import KeyFileError, identity_file, sync_directory
from .wire.seal import Identity

_log = logging.getLogger(__name__)
_LOSS = "have the agent approved again: its key is who it is"


@dataclass
class Keep:
    """`pin` is the one server that is believed; `known`: that server has this key, so no passphrase is needed."""

    identity: Identity
    pin: str
    passphrase: str = field(default="", repr=False)
    known: bool = False
    pin_file: Path | None = None
    passphrase_file: Path | None = None

    def met(self) -> None:
        """The server has proven itself and knows this agent from now on; the pin is kept for the time after the
        passphrase."""
        if self.known:
            return
        self.known = True
        if self.pin_file is not None:
            _write(self.pin_file, self.pin)

    def approved(self) -> None:
        """The passphrase has done its work: nobody shall find it on this host."""
        self.passphrase = ""
        if self.passphrase_file is None:
            return
        file, self.passphrase_file = self.passphrase_file, None
        if by_systemd(file):
            _log.info(say("approved; the passphrase is not needed any more, and stays, for it is systemd's to give: "
                          "take LoadCredential= out of the unit to be rid of it", file=str(file)))  # fmt: skip
            return
        try:
            file.unlink()
            sync_directory(file.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning(say("the passphrase is not needed any more and cannot be removed; remove it",
                             file=str(file), reason=error.strerror or str(error)))  # fmt: skip
            return
        _log.info(say("approved; the passphrase is not needed any more and was removed", file=str(file)))


def own_identity(config: Config) -> Identity:
    """This agent's key, made at the first start. Raises KeyFileError."""
    directory = Path(config.agent.state_dir)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        why = f"agent.state_dir {directory} cannot be made ({error.strerror})"
        raise KeyFileError(f"{why}; make it for user {os.geteuid()}, or set another") from None
    return identity_file(directory / IDENTITY_FILE, _LOSS)


def keep_of(config: Config) -> Keep:
    """What this host keeps. Raises KeyFileError."""
    identity = own_identity(config)
    pin_file = Path(config.agent.state_dir) / PIN_FILE
    stored = pin_file.read_text().strip() if pin_file.exists() else ""
    pin = config.pin or stored
    file = Path(config.server.passphrase_file) if config.passphrase else None
    return Keep(identity, pin, config.passphrase, pin == stored, pin_file, file)


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    sync_directory(file.parent)
