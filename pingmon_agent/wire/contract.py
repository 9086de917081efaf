"""THE WIRE CONTRACT: event names, messages, limits, error codes, protocol version (docs/wire.md).

Every message is frozen and checked when it is built, so neither program can say what the other may not hear.
Must not know: sockets, clocks, files, either program.
"""

from __future__ import annotations

import ipaddress
import re
from array import array
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

NAMESPACE = "/agent"
EVENT_HANDSHAKE = "handshake"
EVENT_TARGETS = "update_targets"
EVENT_DATA = "monitoring_data"

PROTOCOL_VERSION = 1
# A whole round of 12,000 targets fits; more than this in one message would stall the server's one thread.
MAX_MESSAGE_BYTES = 65_536
MAX_ROUNDS_PER_REPORT = 64
MAX_SAMPLES_PER_REPORT = 12_000
MAX_TARGETS = 12_000
MAX_TARGET_TEXT = 300  # a host name of 253 characters, and what the server adds to tell two apart
# Longer columns travel packed: a fifth of the CPU of a list of numbers, and a size that depends on no value.
LIST_COLUMN = 512
MAX_RTT_US = 60_000_000
MAX_TEXT = {"passphrase": 1_400, "hostname": 253, "ip_address": 45, "version": 32}

# A current agent marks itself inside the passphrase field, so the four original fields stay as they are.
PLAIN_TAG = "pmplain1:"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_EPOCH = re.compile(r"[0-9a-f]{16}")


class WireError(ValueError):
    """The peer said something the contract forbids: counted and answered, never a crash."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class State(StrEnum):
    """What the server thinks of an agent; the first four words are those of the original contract."""

    PENDING = "pending"
    APPROVED = "approved"
    HOLD = "hold"
    BLACKLISTED = "blacklisted"
    ERROR = "error"


class ErrorCode(StrEnum):
    """Why a message was refused. docs/wire.md says what an agent does about each."""

    MALFORMED = "E_MALFORMED"
    HOSTNAME = "E_HOSTNAME"
    IP = "E_IP"
    VERSION = "E_VERSION"
    PASSPHRASE = "E_PASSPHRASE"  # noqa: S105 - a code, not a secret
    PASSPHRASE_EXPIRED = "E_PASSPHRASE_EXPIRED"  # noqa: S105 - a code, not a secret
    PASSPHRASE_EXHAUSTED = "E_PASSPHRASE_EXHAUSTED"  # noqa: S105 - a code, not a secret
    PASSPHRASE_REVOKED = "E_PASSPHRASE_REVOKED"  # noqa: S105 - a code, not a secret
    PASSPHRASE_SCOPE = "E_PASSPHRASE_SCOPE"  # noqa: S105 - a code, not a secret
    LEGACY_DISABLED = "E_LEGACY_DISABLED"
    KEY_REQUIRED = "E_KEY_REQUIRED"
    UNKNOWN_KEY = "E_UNKNOWN_KEY"
    NONCE = "E_NONCE"
    SEAL = "E_SEAL"
    SIGNATURE = "E_SIGNATURE"
    CHANNEL = "E_CHANNEL"
    PENDING_FULL = "E_PENDING_FULL"
    STATE = "E_STATE"
    TARGET = "E_TARGET"
    TIME = "E_TIME"
    BATCH = "E_BATCH"
    SEQ_GAP = "E_SEQ_GAP"
    TOO_LARGE = "E_TOO_LARGE"
    UNKNOWN_EVENT = "E_UNKNOWN_EVENT"
    RATE = "E_RATE"
    SERVER = "E_SERVER"


class Outcome(IntEnum):
    """A sample is the RTT in whole microseconds (>= 0) or one of these codes. Codes are contiguous by design:
    one `min()` over a column proves that it holds nothing else."""

    TIMEOUT = -1
    NOT_PROBED = -2
    UNREACHABLE = -3
    NOT_SENT = -4
    UNRESOLVED = -5
    TTL_EXCEEDED = -6
    REFUSED_BY_POLICY = -7


LOWEST_OUTCOME = min(Outcome)
STATUS_OK, STATUS_ERROR = "ok", "error"
STATUS_BY_OUTCOME: dict[int, str] = {
    Outcome.TIMEOUT: "timeout",
    Outcome.UNREACHABLE: "unreachable",
    Outcome.NOT_SENT: STATUS_ERROR,
    Outcome.UNRESOLVED: STATUS_ERROR,
    Outcome.TTL_EXCEEDED: "unreachable",
    Outcome.REFUSED_BY_POLICY: STATUS_ERROR,
}


def status_of(sample: int) -> str | None:
    """The word of `/monitoring` for a sample; None where nothing was probed. A code that is not known is an error."""
    if sample >= 0:
        return STATUS_OK
    return None if sample == Outcome.NOT_PROBED else STATUS_BY_OUTCOME.get(sample, STATUS_ERROR)


def _require(ok: bool, code: ErrorCode, message: str) -> None:
    if not ok:
        raise WireError(code, message)


def check_hostname(value: str) -> str:
    """`value` in lower case, or WireError: labels of a-z 0-9 _ - as DNS has them, 253 characters at most."""
    name = value.lower()  # which makes ASCII of some letters that only look like it
    _require(
        value.isascii() and 0 < len(name) <= MAX_TEXT["hostname"] and _HOSTNAME.fullmatch(name) is not None,
        ErrorCode.HOSTNAME,
        "hostname must be dot-separated labels of a-z, 0-9, '-' and '_'; set `hostname` in the agent's configuration",
    )
    return name


def check_ip(value: str) -> str:
    """The address in canonical form (an IPv4-mapped IPv6 address becomes IPv4), or WireError."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise WireError(ErrorCode.IP, "ip_address must be one IPv4 or IPv6 address, such as 192.0.2.17") from None
    _require(getattr(address, "scope_id", None) is None, ErrorCode.IP, "ip_address must not carry a zone (%...)")
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@dataclass(frozen=True, kw_only=True)
class Handshake:
    """Agent -> server: who is there. `epoch` and `next_seq` come from current agents only, `sent_ms` (the agent's wall
    clock as this leaves) from those that are new enough.
    """

    passphrase: str = field(repr=False)
    hostname: str
    ip_address: str
    version: str
    epoch: str | None = None
    next_seq: int = 1
    sent_ms: int | None = None

    def __post_init__(self) -> None:
        _require(
            1 <= len(self.passphrase) <= MAX_TEXT["passphrase"],
            ErrorCode.PASSPHRASE,
            "passphrase must be 1 to 1400 characters long",
        )
        _require(
            1 <= len(self.version) <= MAX_TEXT["version"] and self.version.isprintable(),
            ErrorCode.VERSION,
            "version must be 1 to 32 printable characters",
        )
        object.__setattr__(self, "hostname", check_hostname(self.hostname))
        object.__setattr__(self, "ip_address", check_ip(self.ip_address))
        if self.epoch is not None:
            check_epoch(self.epoch)
        _require(self.next_seq >= 1, ErrorCode.MALFORMED, "next must be 1 or more")

    @property
    def legacy(self) -> bool:
        """True for a client of the original contract, which carries no epoch."""
        return self.epoch is None


def check_epoch(value: str) -> str:
    """An epoch is 16 lower-case hex digits, random at every start that cannot prove continuity."""
    _require(_EPOCH.fullmatch(value) is not None, ErrorCode.MALFORMED, "epoch must be 16 lower-case hex digits")
    return value


FAMILIES = (0, 4, 6, 46)
_RANGES = {
    "count": (1, 20),
    "interval_s": (0, 3600),
    "size": (56, 1_400),
    "timeout_ms": (0, 60_000),
    "ttl": (0, 255),
    "dscp": (0, 63),
}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a target is probed. 0 means the agent's default for `timeout_ms` and `ttl`, every round for `interval_s`.

    `family`: 0 = the first address, IPv4 before IPv6; 4; 6; 46 = both, as two probes. `size` = bytes of ICMP payload.
    `source` = address to send from, "" = as the routing table says. `df`: do not fragment (IPv4).
    """

    count: int = 1
    interval_s: float = 0
    size: int = 56
    timeout_ms: int = 0
    family: int = 0
    ttl: int = 0
    dscp: int = 0
    df: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            _require(low <= value <= high, ErrorCode.TARGET, f"{name} must lie between {low} and {high}")
        _require(self.family in FAMILIES, ErrorCode.TARGET, "family must be 0 (either), 4, 6 or 46 (both)")
        if self.source:
            object.__setattr__(self, "source", check_ip(self.source))

    @property
    def columns(self) -> int:
        """Samples of this target in one round: `count` for each family."""
        return self.count * (2 if self.family == 46 else 1)

    def turns(self, interval_s: float) -> int:
        """In every how many rounds, `interval_s` apart, this is due."""
        return max(1, round(self.interval_s / interval_s))


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to ping. `address` is an address or a name; `id` is the server's and never re-used."""

    id: int
    name: str
    address: str
    probe: Probe = Probe()

    def __post_init__(self) -> None:
        fits = 1 <= len(self.name) <= MAX_TARGET_TEXT and 1 <= len(self.address) <= MAX_TARGET_TEXT
        _require(fits, ErrorCode.TARGET, f"a target's name and address have 1 to {MAX_TARGET_TEXT} characters")


@dataclass(frozen=True, kw_only=True)
class TargetSet:
    """Server -> agent: everything to ping from now on; a set never changes under its revision."""

    agent_id: str
    revision: int
    issued_at: int
    interval_s: float
    targets: tuple[Target, ...]

    @property
    def columns(self) -> int:
        """Samples per round: target by target, and of one target first IPv4, then IPv6."""
        return sum(target.probe.columns for target in self.targets)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One pass over all targets: the one type that travels from the engine to the picture.

    `samples` has one int32 per column of set `revision`, in its order: RTT in us, or an `Outcome`.
    `started_ms` is the agent's wall clock (unix ms) when the first packet left. `disturbed` says that the agent
    itself was late or starved, so losses in it are no evidence against the network.
    """

    epoch: str
    seq: int
    started_ms: int
    revision: int
    samples: array[int]
    disturbed: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """Agent -> server: rounds in rising `seq`, all of one epoch. `gap` = (first, last, reason) given up before them;
    `sent_ms` = the agent's wall clock as this leaves, which older agents do not say; `refused` = (target id, code)
    of names that its host now refuses to ping, None: as said before.
    """

    epoch: str
    rounds: tuple[Round, ...]
    gap: tuple[int, int, str] | None = None
    sent_ms: int | None = None
    refused: tuple[tuple[int, str], ...] | None = None

    @property
    def samples(self) -> int:
        """Samples in the whole report."""
        return sum(len(r.samples) for r in self.rounds)
