"""Refusals and failures as answers: JSON for programs, a page for people, both with a sentence that says what to do.
What went wrong inside is logged under a reference and never shown.
"""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote

from flask import Flask, current_app, jsonify, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException

from pingmon.services.errors import Conflict, Invalid, NotFound, Refused, Unavailable

STATUS: Final[dict[type[Refused], int]] = {NotFound: 404, Conflict: 409, Invalid: 422, Unavailable: 503}
SENTENCES: Final[dict[int, tuple[str, str]]] = {
    400: ("bad_request", "The request cannot be understood. Check its form and send it again."),
    401: ("signed_out", "You are not signed in. Sign in and try again."),
    403: ("forbidden", "Your role does not allow this. Ask an admin."),
    404: ("not_found", "There is nothing at this address. Check it, or start again from the grid."),
    405: ("method_not_allowed", "This address does not take that method. The API description lists what it takes."),
    413: ("too_large", "The request is too large. Send at most 1 MiB."),
    415: ("not_json", "Send the body as JSON, with Content-Type: application/json."),
    421: ("wrong_host", ""),
    500: ("internal", "Something went wrong on the server. Try again; if it stays, look for the reference in its log."),
}
CSRF_SENTENCE: Final = "The form is out of date, or the X-XSRF-Token header is missing. Reload the page and try again."


def install(app: Flask) -> None:
    """Answer every refusal and every failure of this app."""
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(CSRFError, lambda _error: answer(400, "csrf", CSRF_SENTENCE))
    app.register_error_handler(HTTPException, _http)


def wants_json() -> bool:
    """Whether a program is asking; the API never answers with a page."""
    if request.path.startswith(("/api/", "/monitoring/")):
        return True
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def answer(status: int, code: str, message: str) -> ResponseReturnValue:
    """One refusal in the form the asker understands."""
    ref = secrets.token_hex(4)
    log = current_app.logger.error if status >= 500 else current_app.logger.info
    # The rule, not the path: a path may hold the token of the one-time link.
    place = request.url_rule.rule if request.url_rule else repr(request.path)
    log("refused %s %s: %s %s ref=%s", request.method, place, status, code, ref)
    if wants_json():
        return jsonify(code=code, message=message, ref=ref), status
    return render_template("error.html", status=status, message=message, ref=ref), status


def _refused(error: Exception) -> ResponseReturnValue:
    assert isinstance(error, Refused)  # noqa: S101 - registered for this class only
    status = next((number for kind, number in STATUS.items() if isinstance(error, kind)), 400)
    return answer(status, error.code, error.message)


def _http(error: Exception) -> ResponseReturnValue:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    status = error.code or 500
    if status < 400:
        return error.get_response()
    if status == 401 and not wants_json() and request.method == "GET":
        path = quote(request.full_path.rstrip("?"))
        return redirect("/login" if request.path == "/" else f"/login?next={path}")
    code, sentence = SENTENCES.get(status, ("error", error.description or "The request failed."))
    own = error.description if error.description != type(error).description or not sentence else None
    return answer(status, code, sentence if status == 500 or not own else own)
