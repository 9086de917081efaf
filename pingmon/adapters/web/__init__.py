"""The web as seen by people and programs: pages, JSON API, accounts, headers. One call puts all of it on a Flask app.

Must not know: the other adapters (sockets, metrics, jobs) and how the server is started.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

from pingmon.services.bundle import Services

from . import access, accounts, api, errors, headers, measured, pages
from .access import is_our_name
from .accounts import may_read_metrics, viewer_id
from .api import MAX_BODY_BYTES

__all__ = ["MAX_BODY_BYTES", "install", "is_our_name", "may_read_metrics", "viewer_id"]


def install(app: Flask, services: Services, signed_out: Callable[[int], None]) -> None:
    """Put pages, API and sign-in on `app`. `app.secret_key` must be set already; call once.

    `signed_out` hears the number of every user who signs out, so that live connections can be closed.
    """
    app.extensions["pingmon"] = services
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    errors.install(app)
    access.install(app)  # first: who may not come in at all is told so before anything else is checked
    accounts.install(app, services, signed_out)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(measured.blueprint)
    headers.install(app)
