"""The web as seen by people and programs: pages, JSON API, accounts, headers. One call puts all of it on a Flask app.

Must not know: the other adapters (sockets, metrics, jobs) and how the server is started.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from pingmon.services.bundle import Services

from . import access, accounts, api, errors, headers, measured, pages
from .access import is_our_name
from .accounts import may_read_metrics, viewer_id
from .api import MAX_BODY_BYTES

__all__ = ["MAX_BODY_BYTES", "install", "is_our_name", "may_read_metrics", "viewer_id"]


def install(
    app: Flask, services: Services, signed_out: Callable[[int], None], warning: Callable[[], str | None]
) -> None:
    """Put pages, API and sign-in on `app`. `app.secret_key` must be set already; call once.

    `signed_out` hears the number of every user who signs out, so that live connections can be closed;
    `warning` is what administrators have to know on every page, if anything.
    """
    app.extensions["pingmon"] = services
    app.extensions[pages.WARNING] = warning
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    cast(DefaultJSONProvider, app.json).sort_keys = False  # a sixth of the time of a long history
    errors.install(app)
    access.install(app)  # first: who may not come in at all is told so before anything else is checked
    accounts.install(app, services, signed_out)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(measured.blueprint)
    headers.install(app)
