"""Passphrases as things that are made, listed, revoked and recognised; passphrases.py knows how they are spelled.

Must not know: sockets, Flask, agents' keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from pingmon.store.models import Passphrase
from pingmon_agent.wire.contract import ErrorCode, WireError
from pingmon_agent.wire.framing import PASSPHRASE

from . import addresses
from .clock import Clock
from .errors import Conflict, Invalid, NotFound
from .passphrases import KIND_PLAIN, KIND_SEALED, Parsed, Pepper, generate, parse, spell
from .registry import Registry
from .views import PassphraseView

MAX_TTL_S = 366 * 86_400
LEGACY_S = 30 * 86_400  # nobody sends a secret as it is for longer
REVOKED = "this passphrase was revoked; give the agent a new one"
LEGACY_DISABLED = (
    "this server takes no plain passphrase like this one; make one with `pingmon passphrases create --legacy` "
    "or on the Passphrases page and put it into the agent's passphrase file; it works for 30 days at most"
)
LEGACY_OVER = (
    "plain passphrases were allowed here until {until}; use pingmon-agent, or make another with "
    "`pingmon passphrases create --legacy`, which works for 30 days at most"
)
WRONG = "the passphrase is wrong; copy it again or make a new one on the Passphrases page"


class Passphrases:
    """Made, listed, revoked, recognised."""

    def __init__(self, registry: Registry, pepper: Pepper, clock: Clock, pin: str) -> None:
        """`pin`: of this server's identity, which each passphrase brings to its agent."""
        self._registry, self._pepper, self._clock, self.pin = registry, pepper, clock, pin

    def create_passphrase(
        self,
        label: str,
        *,
        legacy: bool,
        max_uses: int,
        ttl_s: int,
        actor: str,
        networks: Iterable[str] = (),
        legacy_s: int = LEGACY_S,
    ) -> tuple[PassphraseView, str]:
        """A new passphrase and its clear text, which nobody can read again. Raises Invalid.

        `networks`: from where it may be used, everywhere if empty; `legacy_s`: how long legacy agents may use it.
        """
        label, entries = label.strip(), addresses.check_entries(networks)
        _check(label, max_uses, ttl_s, legacy_s)
        parts = self._fresh(KIND_PLAIN if legacy else KIND_SEALED)
        now = self._clock.wall_ms()
        row = Passphrase(
            id=parts.id,
            label=label,
            digest=self._pepper.digest(parts),
            pepper_id=self._pepper.id,
            legacy=legacy,
            max_uses=max_uses,
            created_ms=now,
            expires_ms=now + ttl_s * 1000,
            created_by=actor,
            networks=addresses.pack(entries),
            legacy_until_ms=now + legacy_s * 1000 if legacy else None,
        )
        with self._registry.change() as tx:
            tx.add_passphrase(row)
            tx.audit(now, actor, "passphrases.create", row.id, label)
        return PassphraseView.of(row), spell(parts, self.pin)

    def _fresh(self, kind: str) -> Parsed:
        parts = generate(kind)
        return parts if parts.id not in self._registry.snapshot.passphrases else self._fresh(kind)

    def passphrases(self) -> list[PassphraseView]:
        """All of them, newest first."""
        return [PassphraseView.of(row) for row in self._registry.snapshot.passphrases.values()]

    def revoke_passphrase(self, passphrase_id: str, actor: str) -> PassphraseView:
        """From now on it opens nothing, also for legacy agents that used it. Raises NotFound, Conflict."""
        known = self._registry.snapshot.passphrases.get(passphrase_id)
        if known is None:
            raise NotFound(f"there is no passphrase {passphrase_id!r}; `pingmon passphrases list` shows their ids")
        if known.revoked_ms is not None:
            raise Conflict(f"passphrase {passphrase_id} was revoked already")
        now = self._clock.wall_ms()
        with self._registry.change() as tx:
            row = tx.passphrase(passphrase_id)
            if row is not None:
                row.revoked_ms = now
            tx.audit(now, actor, "passphrases.revoke", passphrase_id, known.label)
        return PassphraseView.of(self._registry.snapshot.passphrases[passphrase_id])

    # -- recognising --

    def plain(self, text: str) -> Passphrase:
        """The passphrase behind a plain one; raises WireError."""
        parts = parse(text)
        if parts is None or parts.kind != KIND_PLAIN:
            raise WireError(ErrorCode.LEGACY_DISABLED, LEGACY_DISABLED)
        return self._genuine(parts)

    def sealed(self, text: str) -> Passphrase:
        """The passphrase behind one that came sealed; raises WireError."""
        match = PASSPHRASE.fullmatch(text)
        if match is None or match[3] != self.pin:
            raise WireError(ErrorCode.PASSPHRASE, WRONG)
        return self._genuine(Parsed(KIND_SEALED, match[1], match[2]))

    def _genuine(self, parts: Parsed) -> Passphrase:
        row = self._look(parts)
        if row is None:
            # Made on the command line a moment ago: an agent that is told "wrong" stays away for a quarter of an hour.
            # Done for a wrong secret, too: an unknown id must not take longer.
            self._registry.refresh()
            row = self._look(parts)
        if row is None:
            raise WireError(ErrorCode.PASSPHRASE, WRONG)
        return row

    def _look(self, parts: Parsed) -> Passphrase | None:
        row = self._registry.snapshot.passphrases.get(parts.id)
        # The digest is computed either way: an unknown id must take as long as a wrong secret.
        genuine = self._pepper.matches(parts, row.digest if row else bytes(32))
        return row if genuine and row is not None and row.legacy is (parts.kind == KIND_PLAIN) else None


def _check(label: str, max_uses: int, ttl_s: int, legacy_s: int) -> None:
    if not 1 <= len(label) <= 80 or not label.isprintable():
        raise Invalid("a passphrase needs a label of 1 to 80 printable characters, such as the site it is for")
    if not 1 <= max_uses <= 100_000:
        raise Invalid(f"uses = {max_uses} is wrong: it must lie between 1 and 100000")
    if not 60 <= ttl_s <= MAX_TTL_S:
        raise Invalid(f"a lifetime of {ttl_s} s is wrong: it must lie between 1 minute and 366 days")
    if not 60 <= legacy_s <= LEGACY_S:
        raise Invalid("legacy agents may use a plain passphrase for 1 minute to 30 days")


def why_not(passphrase: Passphrase, now_ms: int) -> WireError:
    """Why a use could not be spent."""
    if passphrase.revoked_ms is not None:
        return WireError(ErrorCode.PASSPHRASE_REVOKED, REVOKED)
    if passphrase.expires_ms <= now_ms:
        return WireError(ErrorCode.PASSPHRASE_EXPIRED, "this passphrase has expired; give the agent a new one")
    return WireError(
        ErrorCode.PASSPHRASE_EXHAUSTED,
        f"all {passphrase.max_uses} uses of this passphrase are spent; make one with more uses",
    )
