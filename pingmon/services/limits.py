"""How much a peer may ask before it is known, and how much an agent may say (docs/decisions.md, "Transport").

Pure numbers over a clock that is handed in. Must not know: sockets, HTTP, what messages mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from pingmon.gate import STRANGERS_PER_ADDRESS, Bucket, network_of

Network = IPv4Network | IPv6Network

UNKNOWN_SOCKETS_PER_ADDRESS: Final = 5
UNKNOWN_SOCKETS_PER_NAT: Final = 64
UNKNOWN_SOCKETS: Final = 500
HANDSHAKE_S: Final = 10.0
# Ten failures at once, then one in ten seconds; who goes on all the same is shut out below TLS for a while.
FAILURES_BURST: Final = 10
FAILURES_PER_S: Final = 0.1
FAILURES_TO_BLOCK: Final = 30
BLOCK_S: Final = 10.0
MESSAGES_PER_S: Final = 5.0
MESSAGES_BURST: Final = 20.0
# A report that was committed waited for its commit; back-fill goes at up to ten times the pace.
PROGRESS_COST: Final = 0.1
REFUSALS_PER_S: Final = 50.0
REFUSALS_BURST: Final = 200.0
MAX_PEERS: Final = 10_000


class Allowance:
    """What a peer may have: addresses behind which many agents are (NAT) get more, those set free get no limit."""

    def __init__(self, nat: Iterable[Network], unlimited: Iterable[Network]) -> None:
        self._nat, self._unlimited = tuple(nat), tuple(unlimited)
        self._known: dict[str, float | None] = {}

    def factor(self, peer: str) -> float | None:
        """1 for one host, more for a NAT address, None for no limit."""
        if peer not in self._known:
            if len(self._known) >= MAX_PEERS:
                self._known.clear()
            self._known[peer] = self._look_up(peer)
        return self._known[peer]

    def _look_up(self, peer: str) -> float | None:
        try:
            address = ip_address(peer)
        except ValueError:
            return 1.0
        if any(address in network for network in self._unlimited):
            return None
        behind_nat = any(address in network for network in self._nat)
        return UNKNOWN_SOCKETS_PER_NAT / UNKNOWN_SOCKETS_PER_ADDRESS if behind_nat else 1.0

    def connections(self, peer: str) -> int | None:
        """TCP connections of strangers; None: any number."""
        factor = self.factor(peer)
        return None if factor is None else round(STRANGERS_PER_ADDRESS * factor)

    def unknown_sockets(self, peer: str) -> int | None:
        """Websockets before their handshake; None: any number."""
        factor = self.factor(peer)
        return None if factor is None else round(UNKNOWN_SOCKETS_PER_ADDRESS * factor)


class Failures:
    """Failed handshakes by peer."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._peers: dict[str, tuple[Bucket, Bucket]] = {}

    def exhausted(self, address: str, now: float) -> float | None:
        """Seconds to wait before this address may fail again, or None: it may try."""
        found = self._peers.get(network_of(address))
        if found is None or (found[0].take(now, 0) and found[0].tokens >= 1):
            return None
        return max(1.0, (1 - found[0].tokens) / found[0].rate)

    def note(self, address: str, now: float) -> bool:
        """One more failure, also one that was refused unseen; True where the address is to be blocked."""
        peer = network_of(address)
        factor = self._allowance.factor(peer)
        if factor is None:
            return False
        if peer not in self._peers:
            self._make_room(now)
            few = Bucket(FAILURES_PER_S * factor, FAILURES_BURST * factor, now)
            self._peers[peer] = few, Bucket(FAILURES_PER_S * factor, FAILURES_TO_BLOCK * factor, now)
        few, many = self._peers[peer]
        few.take(now)
        return not many.take(now)

    def _make_room(self, now: float) -> None:
        if len(self._peers) < MAX_PEERS:
            return
        self._peers = {peer: pair for peer, pair in self._peers.items() if not pair[1].full(now)}
        # A tenth at once: an attack from ever new addresses must not make us look through all of them each time.
        for peer in list(self._peers)[: MAX_PEERS // 10] if len(self._peers) > MAX_PEERS * 9 // 10 else ():
            del self._peers[peer]


class Talk:
    """How fast one connection may talk: `hear` each message, `progress` where it was worth it."""

    def __init__(self, now: float, per_s: float = MESSAGES_PER_S) -> None:
        self._messages = Bucket(per_s, MESSAGES_BURST / MESSAGES_PER_S * per_s, now)
        self._refusals = Bucket(REFUSALS_PER_S / MESSAGES_PER_S * per_s, REFUSALS_BURST / MESSAGES_PER_S * per_s, now)
        self.per_s, self.warned = per_s, False

    def hear(self, now: float) -> bool:
        """False: too fast, refuse this one."""
        return self._messages.take(now)

    def progress(self) -> None:
        """The last message was committed, or is how an honest agent finds its way back: it costs a tenth."""
        self._messages.give_back(1 - PROGRESS_COST)

    def hopeless(self, now: float) -> bool:
        """After a refusal: True where it goes on ten times faster than allowed, and is to be cut."""
        return not self._refusals.take(now)
