"""The pages: thin shells that the script fills from the API, and the form of the one-time link for the first admin."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from pingmon.services.errors import Refused

from .accounts import Role, current_email, current_role, sign_in
from .context import services
from .credentials import clean_email, clean_password, hash_password

STATIC_DIR: Final = Path(__file__).parents[2] / "static"
LOCAL_ONLY: Final = (
    "This link works on the server itself only. Open it there, or through an SSH tunnel: "
    "ssh -L 8443:127.0.0.1:8443 <server>, with the port of your server."
)
WARNING: Final = "pingmon.warning"  # the name under which `install` leaves its function
LINK_DEAD: Final = (
    "This link does not work any more: it was used, or it is older than one hour. "
    "Make a new one on the server with `pingmon users create --admin`."
)

blueprint = Blueprint("web", __name__, template_folder="templates", static_folder=STATIC_DIR, static_url_path="/static")


@blueprint.app_context_processor
def frame() -> dict[str, Any]:
    """What every page shows around its content."""
    role = current_role()
    return {
        "asset": asset,
        "built": (STATIC_DIR / "app.js").exists(),
        "email": current_email(),
        "role": role.name.lower() if role else "",
        "may_edit": (role or 0) >= Role.OPERATOR,
        "is_admin": role is Role.ADMIN,
        "warning": current_app.extensions[WARNING]() if role is Role.ADMIN else None,
        "socket_url": "wss://" + services().config.public_url.removeprefix("https://"),
    }


def asset(name: str) -> str:
    """The address of a built file; its content's hash is part of it, so that browsers may keep it for good."""
    path = STATIC_DIR / name
    return url_for("web.static", filename=name, v=_hash(path, path.stat().st_mtime_ns) if path.exists() else None)


@lru_cache(maxsize=32)
def _hash(path: Path, _changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@blueprint.get("/")
def grid() -> ResponseReturnValue:
    """Agents by targets, live."""
    return render_template("grid.html", page="grid", raw_hours=services().config.retention.raw_hours)


@blueprint.get("/agents")
def agents() -> ResponseReturnValue:
    """Approve, reject, hold, release, delete."""
    return render_template("agents.html", page="agents")


@blueprint.get("/targets")
def targets() -> ResponseReturnValue:
    """What all agents ping."""
    return render_template("targets.html", page="targets")


@blueprint.get("/passphrases")
def passphrases() -> ResponseReturnValue:
    """What lets a new agent ask for approval."""
    return render_template("passphrases.html", page="passphrases")


@blueprint.route("/welcome/<token>", methods=["GET", "POST"])
def welcome(token: str) -> ResponseReturnValue:
    """Make the first admin, once, from the server itself."""
    if not _from_here():
        abort(403, LOCAL_ONLY)
    if not services().accounts.check_link(token, services().clock.wall_ms()):
        abort(404, LINK_DEAD)
    if request.method == "GET":
        return render_template("welcome.html", token=token, problem="", given="")
    given = request.form.get("email", "")
    try:
        _make_admin(token, given, request.form.get("password", ""), request.form.get("again", ""))
    except Refused as refusal:
        return render_template("welcome.html", token=token, problem=refusal.message, given=given), 422
    return redirect("/")


def _from_here() -> bool:
    """Whether the browser is on this host: it comes from loopback, or from the one address the server listens on."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or str(address) == services().config.server.listen


def _make_admin(token: str, email: str, password: str, again: str) -> None:
    email, password = clean_email(email), clean_password(password)
    if password != clean_password(again):
        raise Refused("The two passwords differ. Type the same one twice.")
    user = services().accounts.redeem_link(token, email, hash_password(password), services().clock.wall_ms())
    if user is None:
        raise Refused("The link was used in the meantime, or this e-mail has an account already. Sign in instead.")
    sign_in(user)
