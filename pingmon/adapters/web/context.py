"""The way from a request to the services behind it."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import current_app

from pingmon.services.bundle import Services


def services() -> Services:
    """What `install` put on this app."""
    found: Services = current_app.extensions["pingmon"]
    return found


def public_host() -> str:
    """The host name in server.public_url."""
    return (urlsplit(services().config.public_url).hostname or "").lower()
