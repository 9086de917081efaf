"""The security headers of every answer: no script, style or frame that is not ours, nothing kept by caches."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

FIXED: Final[dict[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
}
# Strict-Transport-Security is left to operators with a certificate that browsers trust: with a private CA that is not
# in the browser, it would lock the admin out.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self' {socket}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'"
)
STATIC: Final = "web.static"
YEAR_S: Final = 31_536_000


def install(app: Flask) -> None:
    """Add the headers to every answer of this app."""
    # The public address stands in the policy for browsers in which 'self' does not cover wss.
    policy = POLICY.format(socket="wss://" + app.extensions["pingmon"].config.public_url.removeprefix("https://"))

    @app.after_request
    def add(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        for name, value in FIXED.items():
            response.headers.setdefault(name, value)
        _say_how_long(response)
        return response


def _say_how_long(response: Response) -> None:
    if request.endpoint != STATIC:
        response.headers["Cache-Control"] = "no-store"
    elif response.status_code < 400:
        # A page names its files with a hash of their content; without it the browser asks with the etag each time.
        named_by_hash = "v" in request.args
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable" if named_by_hash else "no-cache"
