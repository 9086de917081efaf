"""A browser without a screen: HTTPS by the private CA alone, cookies, forms filled in by the type of their fields."""

from __future__ import annotations

import json
import re
import ssl
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPSHandler, ProxyHandler, Request, build_opener

EMAIL, PASSWORD = "admin@example.net", "correct horse battery 7"


def strict_context(ca_file: Path) -> ssl.SSLContext:
    """Trusts this CA and nothing else, as strictly as Python 3.13 does by default."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


class _Inputs(HTMLParser):
    """name -> (type, value) of each <input> of a page that can be sent."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        name = fields.get("name")
        if tag == "input" and name:
            self.found[name] = (fields.get("type") or "text", fields.get("value") or "")


class Session:
    """One visitor: keeps cookies, trusts only `ca_file`."""

    def __init__(self, url: str, ca_file: Path) -> None:
        self.url = url
        self.opener = build_opener(
            HTTPSHandler(context=strict_context(ca_file)), HTTPCookieProcessor(), ProxyHandler({})
        )

    def request(
        self, path: str, data: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """(status, body) of `path`, redirects followed; header names with _ for -."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        target = path if path.startswith("https://") else self.url + path
        try:
            with self.opener.open(Request(target, data, fields, method=method), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        """The JSON at `path`; AssertionError with the body where the answer is not 200."""
        status, body = self.request(path, Accept="application/json")
        assert status == 200, f"{path} answered {status}: {body[:300]}"
        return json.loads(body)

    def is_up(self, path: str) -> bool:
        """Whether `path` answers 200 right now; False while nothing listens."""
        try:
            return self.request(path)[0] == 200
        except URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise
            return False

    def fill_in(self, path: str, email: str, password: str) -> tuple[int, str]:
        """Send the form at `path` with the address in its e-mail field and the password in each password field."""
        status, page = self.request(path)
        assert status == 200, f"{path} answered {status}: {page[:300]}"
        typed = {"email": email, "password": password}
        fields = {name: typed.get(kind, value) for name, (kind, value) in _Inputs(page).found.items()}
        assert typed["password"] in fields.values(), f"{path} has no form with a password: {page[:300]}"
        target = path if path.startswith("https://") else self.url + path
        return self.request(path, urlencode(fields).encode(), Referer=target)

    def redeem(self, text: str, email: str = EMAIL, password: str = PASSWORD) -> None:
        """Become the first administrator by the one-time link that stands in `text`."""
        link = re.search(r"https://\S+/welcome/\S+", text)
        assert link, f"no one-time link in: {text}"
        status, body = self.fill_in(link.group(), email, password)
        assert status == 200, f"the one-time link answered {status}: {body[:300]}"
