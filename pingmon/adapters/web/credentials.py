"""E-mail addresses and passwords: what is accepted, and how a password is kept. The web and the command line use the
same functions, so that a user made by one can sign in at the other. Must not know: Flask, users, the store.
"""

from __future__ import annotations

import threading
import unicodedata
from typing import Any, Final

from argon2 import PasswordHasher
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from pingmon.concurrency import run_blocking
from pingmon.services.errors import Invalid

PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 128
# argon2id with the OWASP minimum: about 50 ms. Two at once are enough and bound the memory of a login storm.
TIME_COST: Final = 2
MEMORY_KIB: Final = 19_456
LANES: Final = 1
EMAIL_RULES: Final[dict[str, Any]] = {"check_deliverability": False, "globally_deliverable": False}
TOO_COMMON: Final = ("password", "pingmon", "123456789", "qwertyuiop")

# Closed networks use these names for real; nothing is ever sent there by us.
for _name in ("local", "localhost"):
    if _name in SPECIAL_USE_DOMAIN_NAMES:
        SPECIAL_USE_DOMAIN_NAMES.remove(_name)

_turns = threading.BoundedSemaphore(2)
_hasher = PasswordHasher(TIME_COST, MEMORY_KIB, LANES)


def clean_email(text: str) -> str:
    """The address in the form it is stored in; raises Invalid. Names of closed networks (`.local`, no dot) are fine."""
    try:
        return validate_email(text.strip(), **EMAIL_RULES).normalized.lower()
    except EmailNotValidError as error:
        raise Invalid(f"{text.strip()!r} is not an e-mail address: {error}") from None


def clean_password(text: str) -> str:
    """The password in the form that is hashed; raises Invalid with what is missing."""
    password = unicodedata.normalize("NFKD", text)
    if len(password) < PASSWORD_MIN:
        raise Invalid(f"The password is too short: use {PASSWORD_MIN} characters or more, such as four random words.")
    if len(password) > PASSWORD_MAX:
        raise Invalid(f"The password is too long: use at most {PASSWORD_MAX} characters.")
    lowered = password.lower()
    if len(set(password)) < 5 or any(lowered.replace(word, "") in ("", "1", "123") for word in TOO_COMMON):
        raise Invalid("The password is too easy to guess: use four random words, for example.")
    return password


def hash_password(password: str) -> str:
    """argon2id of a clean password, made off the hub (it takes 50 ms of pure computing)."""
    with _turns:
        return run_blocking(_hasher.hash, password)


class OffHub:
    """A passlib context whose slow calls leave the hub free; everything else goes straight through."""

    def __init__(self, context: Any) -> None:
        self._context = context
        context.hash("loads the backend here, not in a native thread")

    def hash(self, secret: str | bytes, **options: Any) -> str:
        """Like CryptContext.hash."""
        with _turns:
            hashed: str = run_blocking(self._context.hash, secret, **options)
        return hashed

    def verify(self, secret: str | bytes, hashed: str | bytes | None, **options: Any) -> bool:
        """Like CryptContext.verify."""
        with _turns:
            return bool(run_blocking(self._context.verify, secret, hashed, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
