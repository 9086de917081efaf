"""Who may call what: one table for every route of the web, checked before the view runs. A route without a line in
the table answers nobody, so a new view cannot be open by accident. Must not know what the views do.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from flask import Flask, abort, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from .accounts import Role, current_role
from .context import public_host

ANYONE: Final = None

PERMISSIONS: Final[dict[str, Role | None]] = {
    "web.static": ANYONE,
    "security.login": ANYONE,
    "security.logout": ANYONE,
    "web.welcome": ANYONE,
    "web.grid": Role.VIEWER,
    "web.agents": Role.VIEWER,
    "web.targets": Role.VIEWER,
    "web.passphrases": Role.ADMIN,
    "measured.pair": Role.VIEWER,
    "measured.grid": Role.VIEWER,
    "measured.history_of_pair": Role.VIEWER,
    "measured.history_of_many": Role.VIEWER,
    "measured.agent_completeness": Role.VIEWER,
    "measured.pair_completeness": Role.VIEWER,
    "api.list_agents": Role.VIEWER,
    "api.show_agent": Role.VIEWER,
    "api.evidence_of_agent": Role.ADMIN,
    "api.change_agent": Role.ADMIN,
    "api.rekey_agent": Role.ADMIN,
    "api.approve_agent": Role.ADMIN,
    "api.reject_agent": Role.ADMIN,
    "api.hold_agent": Role.ADMIN,
    "api.release_agent": Role.OPERATOR,
    "api.delete_agent": Role.ADMIN,
    "api.list_targets": Role.VIEWER,
    "api.put_targets": Role.OPERATOR,
    "api.add_target": Role.OPERATOR,
    "api.change_target": Role.OPERATOR,
    "api.remove_target": Role.OPERATOR,
    "api.list_passphrases": Role.ADMIN,
    "api.create_passphrase": Role.ADMIN,
    "api.reject_pending": Role.ADMIN,
    "api.revoke_passphrase": Role.ADMIN,
}
OURS: Final = ("web.", "api.", "measured.", "security.")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class WrongHost(HTTPException):
    """The request names a host that is not this server (DNS rebinding, or public_url is not set)."""

    code = 421
    description = (
        "This server is not known by that name. Set server.public_url to the address people use, "
        "or open it by its IP address."
    )


def install(app: Flask) -> None:
    """Check every request for one of our routes."""
    app.before_request(_gate)


def _gate() -> Response | None:
    endpoint = request.endpoint
    if endpoint is None or not endpoint.startswith(OURS):
        return None
    _check_host()
    if request.method not in SAFE_METHODS and request.headers.get("Sec-Fetch-Site", "same-origin") == "cross-site":
        abort(403, "This request came from another web site. Open pingmon itself and try again.")
    if endpoint not in PERMISSIONS:
        abort(404)
    needed = PERMISSIONS[endpoint]
    if needed is ANYONE:
        return None
    mine = current_role()
    if mine is None:
        abort(401)
    if mine < needed:
        abort(403, f"This needs the role {needed.name.lower()}; yours is {mine.name.lower()}. Ask an admin.")
    return None


def _check_host() -> None:
    # A rebound DNS name would let a foreign page talk to us as the same origin; an IP address cannot be rebound.
    name = request.host.rsplit(":", 1)[0].strip("[]").lower()
    if not is_our_name(name, public_host()):
        raise WrongHost


def is_our_name(name: str, public: str) -> bool:
    """Whether browsers may reach this server by `name` (lower case): its public one, localhost, or any IP address."""
    if name in ("localhost", public):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
