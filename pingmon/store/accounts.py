"""Users, roles and the one-time link that makes the first admin."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from .directory import Directory
from .models import Audit, OneTimeLink, Role, User

ROLES = {
    "viewer": "sees the picture and its history",
    "operator": "also changes targets and releases agents from hold",
    "admin": "may do everything",
}
FIRST_ADMIN = "first-admin"
LINK_TTL_MS = 3_600_000


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Accounts:
    """Who may sign in. Passwords arrive hashed; this file never sees one."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        with directory.orm(write=True) as session:
            known = set(session.exec(select(Role.name)))
            session.add_all(Role(name=n, description=d) for n, d in ROLES.items() if n not in known)

    def users(self) -> list[User]:
        """All users with their roles, by e-mail."""
        with self._directory.orm() as session:
            users = list(session.exec(select(User).order_by(col(User.email))))
            for user in users:
                _ = user.roles  # loaded while the session is open
            return users

    def has_admin(self) -> bool:
        """Whether somebody can administer already."""
        return any(user.active and any(role.name == "admin" for role in user.roles) for user in self.users())

    def create_link(self, now_ms: int, actor: str) -> str:
        """A fresh token for the first admin's link, good for one hour; links made before it are dead."""
        token = secrets.token_urlsafe(32)
        with self._directory.orm(write=True) as session:
            for old in session.exec(select(OneTimeLink).where(col(OneTimeLink.used_ms).is_(None))):
                session.delete(old)
            session.add(Audit(at_ms=now_ms, actor=actor, action="users.link", subject=FIRST_ADMIN))
            session.add(
                OneTimeLink(
                    token_hash=_hash(token), purpose=FIRST_ADMIN, created_ms=now_ms, expires_ms=now_ms + LINK_TTL_MS
                )
            )
        return token

    def check_link(self, token: str, now_ms: int) -> bool:
        """Whether the link would still work; looking does not use it."""
        with self._directory.orm() as session:
            link = session.get(OneTimeLink, _hash(token))
            return link is not None and link.used_ms is None and link.expires_ms > now_ms

    def redeem_link(self, token: str, email: str, password_hash: str, now_ms: int) -> User | None:
        """Use the link up and make the admin; None if it no longer works or the e-mail is taken."""
        with self._directory.orm(write=True) as session:
            # One statement looks and marks: of two requests at once only one may find the link unused.
            spent = session.execute(
                update(OneTimeLink)
                .where(
                    col(OneTimeLink.token_hash) == _hash(token),
                    col(OneTimeLink.used_ms).is_(None),
                    col(OneTimeLink.expires_ms) > now_ms,
                    ~select(User).where(col(User.email) == email).exists(),
                )
                .values(used_ms=now_ms)
            )
            if spent.rowcount != 1:  # type: ignore[attr-defined]
                return None
            session.add(Audit(at_ms=now_ms, actor=email, action="users.create", subject=email, detail="one-time link"))
            return _new_user(session, email, password_hash, ("admin",))

    def create_user(
        self, email: str, password_hash: str, roles: tuple[str, ...], actor: str, now_ms: int
    ) -> User | None:
        """A user with a password; None if the e-mail is taken."""
        with self._directory.orm(write=True) as session:
            if session.exec(select(User).where(col(User.email) == email)).first() is not None:
                return None
            session.add(Audit(at_ms=now_ms, actor=actor, action="users.create", subject=email, detail=",".join(roles)))
            return _new_user(session, email, password_hash, roles)


def _new_user(session: Session, email: str, password_hash: str, roles: tuple[str, ...]) -> User:
    user = User(
        email=email,
        password=password_hash,
        fs_uniquifier=secrets.token_hex(32),
        fs_token_uniquifier=secrets.token_hex(32),
        created_at=datetime.now(UTC),
        roles=list(session.exec(select(Role).where(col(Role.name).in_(roles)))),
    )
    session.add(user)
    session.flush()
    return user
