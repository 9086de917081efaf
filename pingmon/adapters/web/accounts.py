"""Sign-in: the only file that names Flask-Security. Sets it up with the cures it needs under SQLModel and green
threads (docs/decisions.md), and answers one question for everybody else: who is asking, in which role.
Must not know: pages, API.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask, Response, abort, current_app, request
from flask.globals import app_ctx
from flask_login import user_logged_out  # type: ignore[import-untyped]
from flask_security import Security, current_user, login_user
from flask_security.datastore import SQLAlchemySessionUserDatastore
from flask_security.forms import LoginForm
from flask_wtf.csrf import CSRFProtect  # type: ignore[import-untyped]
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import scoped_session

from pingmon.services.bundle import Services
from pingmon.store.models import Role as RoleRow
from pingmon.store.models import User

from .credentials import EMAIL_RULES, LANES, MEMORY_KIB, PASSWORD_MIN, TIME_COST, OffHub

log = logging.getLogger("pingmon.accounts")
SESSION_LIFE = timedelta(hours=12)


class Role(enum.IntEnum):
    """The roles in rising order: each may do what the ones before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


SETTINGS: dict[str, Any] = {
    "SESSION_COOKIE_NAME": "__Host-pingmon",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_PATH": "/",
    "PERMANENT_SESSION_LIFETIME": SESSION_LIFE,
    # The token lives as long as the session: a grid stays open for days.
    "WTF_CSRF_TIME_LIMIT": None,
    # We send Referrer-Policy: no-referrer, so there is no Referer to check; access.py looks at Sec-Fetch-Site instead.
    "WTF_CSRF_SSL_STRICT": False,
    "WTF_CSRF_HEADERS": ["X-XSRF-Token"],
    "SECURITY_DATETIME_FACTORY": lambda: datetime.now(UTC),
    "SECURITY_EMAIL_VALIDATOR_ARGS": EMAIL_RULES,
    "SECURITY_PASSWORD_HASH": "argon2",
    "SECURITY_PASSWORD_SCHEMES": ["argon2"],
    "SECURITY_PASSWORD_SINGLE_HASH": True,
    "SECURITY_PASSWORD_SALT": "unused: argon2 salts by itself",
    "SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS": {
        "argon2__type": "ID",
        "argon2__time_cost": TIME_COST,
        "argon2__memory_cost": MEMORY_KIB,
        "argon2__parallelism": LANES,
    },
    "SECURITY_PASSWORD_LENGTH_MIN": PASSWORD_MIN,
    "SECURITY_RETURN_GENERIC_RESPONSES": True,
    "SECURITY_MSG_GENERIC_AUTHN_FAILED": ("Sign-in failed: the e-mail or the password is wrong.", "error"),
    "SECURITY_TRACKABLE": True,
    "SECURITY_REGISTERABLE": False,
    "SECURITY_RECOVERABLE": False,
    "SECURITY_CONFIRMABLE": False,
    "SECURITY_CHANGEABLE": False,
    "SECURITY_API_ENABLED_METHODS": ["session"],
    "SECURITY_LOGIN_USER_TEMPLATE": "login.html",
    "SECURITY_LOGOUT_METHODS": ["POST"],
    "SECURITY_LOGOUT_CSRF": True,
    "SECURITY_POST_LOGIN_VIEW": "/",
    "SECURITY_POST_LOGOUT_VIEW": "/login",
    "SECURITY_FLASH_MESSAGES": False,
    "SECURITY_STATIC_FOLDER": None,
}


class _Datastore(SQLAlchemySessionUserDatastore):
    """Signing in also notes when and from where; a full disk must not lock out whoever comes to see what is wrong."""

    def commit(self) -> None:
        """Save, if the database can be written."""
        try:
            super().commit()
        except OperationalError as error:
            self.db.session.rollback()
            log.warning("the time of this sign-in is not kept: %s", error.orig)


class SignInForm(LoginForm):
    """The stock form without "remember me": a cookie that outlives the session cannot be ended by us."""

    remember = None


def install(app: Flask, services: Services, signed_out: Callable[[int], None]) -> None:
    """Set up sessions, CSRF protection and /login, /logout; `signed_out` hears the number of a user who leaves."""
    app.config.from_mapping(SETTINGS)
    # One session per request, not per thread: green threads come and go within one.
    factory: Any = services.directory.session
    sessions: scoped_session[Any] = scoped_session(factory, scopefunc=_context_id)
    CSRFProtect(app)
    datastore = _Datastore(sessions, User, RoleRow)
    security = Security(app, datastore, login_form=SignInForm)
    security.pwd_context = OffHub(security.pwd_context)
    # Flask-Security's own tokens are signed, not stored, so nobody could revoke one: cookie sessions only.
    app.login_manager.request_loader(lambda _request: None)  # type: ignore[attr-defined]
    app.before_request(_refuse_token_requests)

    def left(_app: Flask, user: Any, **_more: Any) -> None:
        signed_out(int(user.id))

    user_logged_out.connect(left, app, weak=False)

    app.after_request(_forget_cache)

    @app.teardown_appcontext
    def close_session(_error: BaseException | None) -> None:
        sessions.remove()


def _context_id() -> int:
    return id(app_ctx._get_current_object())  # type: ignore[attr-defined]


def _refuse_token_requests() -> None:
    if "include_auth_token" in request.args or "include_auth_token" in request.form:
        abort(400, "Authentication tokens are not given out here. Use the session cookie.")


def _forget_cache(response: Response) -> Response:
    if request.endpoint == "security.logout" and request.method == "POST":
        response.headers["Clear-Site-Data"] = '"cache"'  # theme and zoom in the local storage are no secrets
    return response


def current_role() -> Role | None:
    """The highest role of whoever sends this request; None without a valid sign-in."""
    if not current_user.is_authenticated:
        return None
    names = {role.name.upper() for role in current_user.roles}
    held = [role for role in Role if role.name in names]
    return max(held) if held else None


def viewer_id() -> int | None:
    """Who looks, as a user number: for whoever keeps connections open for them. None: nobody who may."""
    return None if current_role() is None else int(current_user.id)


def may_read_metrics() -> bool:
    """Whether this request comes from an admin."""
    return current_role() is Role.ADMIN


def current_email() -> str:
    """Who it is, for the audit log; "" without a valid sign-in."""
    return str(current_user.email) if current_user.is_authenticated else ""


def sign_in(user: User) -> None:
    """Start a session for a user who has just proven who they are some other way (the one-time link)."""
    datastore = current_app.extensions["security"].datastore
    login_user(datastore.find_user(email=user.email), authn_via=["link"])
    datastore.commit()
