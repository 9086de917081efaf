"""Headers of every answer, and the sources they protect: no inline script or style, no markup made from text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pingmon
from pingmon.store.models import Target

from .site import Site, open_site

PACKAGE = Path(pingmon.__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self' wss://monitor.example.net:8443; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/", "/agents", "/login", "/nothing", "/api/v1/grid", "/api/v1/nothing", "/-/healthy"]
)
@pytest.mark.parametrize("role", [None, "admin"])
def test_every_answer_carries_the_headers(tmp_path: Path, path: str, role: str | None) -> None:
    """Pages, API, refusals and the pages of others alike; caches keep nothing."""
    site = open_site(tmp_path, {"public_url": "https://monitor.example.net:8443"})
    headers = site.visitor(role).get(path).headers

    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Permissions-Policy"] == "geolocation=(), camera=(), microphone=()"
    assert headers["Cache-Control"] == "no-store"
    assert not {"Server", "X-Powered-By"} & set(headers.keys())


def test_built_files_may_be_kept_and_change_their_address_with_their_content(site: Site) -> None:
    """A page names each file with a hash; without it the browser asks again with the etag."""
    visitor = site.visitor()
    page = visitor.get("/login").text
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert [name.split("?")[0] for name in named] == [
        "/static/icon.svg", "/static/app.css", "/static/theme.js", "/static/app.js",
    ]  # fmt: skip
    for name in named:
        kept = visitor.get(name)
        plain = visitor.get(name.split("?")[0])
        assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert plain.headers["Cache-Control"] == "no-cache"
        assert visitor.get(name.split("?")[0], headers={"If-None-Match": plain.headers["ETag"]}).status_code == 304


def test_templates_have_nothing_inline_and_nothing_unescaped() -> None:
    """The policy would block it in the browser; this names the line before anybody opens one."""
    forbidden = re.compile(r"\|\s*safe|Markup\(|<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:")
    for template in sorted((PACKAGE / "adapters" / "web" / "templates").rglob("*.html")):
        for number, line in enumerate(template.read_text().splitlines(), 1):
            assert not forbidden.search(line), f"{template.name}:{number}: {line.strip()}"


def test_scripts_never_turn_text_into_markup() -> None:
    """Names come from strangers: text nodes only."""
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function")
    for source in sorted((PACKAGE / "frontend" / "src").rglob("*.ts")):
        assert not forbidden.search(source.read_text()), source.name


def test_a_hostile_name_is_text_everywhere(site: Site) -> None:
    """What got into the database by another way is still only text in the pages (39)."""
    services = site.application.services
    with services.registry.change() as tx:
        tx.add_target(Target(name="<script>alert(1)</script>", address="192.0.2.1", created_ms=0))
    admin = site.visitor("admin")

    assert "<script>alert" not in admin.get("/").text
    assert "<script>alert" not in admin.get("/targets").text
    assert admin.get("/api/v1/targets").content_type == "application/json"


def test_npm_packages_are_pinned_by_hash_and_by_no_address() -> None:
    """The lock file works with any registry: versions and integrity hashes, no URLs; direct ones are exact versions."""
    frontend = PACKAGE / "frontend"
    manifest = json.loads((frontend / "package.json").read_text())
    lock = json.loads((frontend / "package-lock.json").read_text())

    for name, version in {**manifest["dependencies"], **manifest["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
    for path, package in lock["packages"].items():
        assert "resolved" not in package, path
        assert path == "" or package["integrity"].startswith("sha512-"), path
    assert "omit-lockfile-registry-resolved=true" in (frontend / ".npmrc").read_text()
