"""Sign-in, sign-out, sessions and the one-time link of the first admin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
from sqlmodel import col, select

from pingmon.adapters.web import credentials
from pingmon.adapters.web.credentials import clean_email, clean_password
from pingmon.services.errors import Invalid
from pingmon.store.models import User

from .site import BASE, PASSWORD, Site, Visitor, open_site

KNOWN = {"email": "admin@example.net", "password": PASSWORD}
SHORT = "The password is too short: use 12 characters or more, such as four random words."
EASY = "The password is too easy to guess: use four random words, for example."
WRONG = "Sign-in failed: the e-mail or the password is wrong."


def test_the_session_cookie_is_bound_to_this_host_and_hidden_from_scripts(site: Site) -> None:
    """__Host- prefix, Secure, HttpOnly, SameSite=Lax, no Domain."""
    visitor = site.visitor()
    (cookie,) = visitor.cookies(visitor.sign_in("admin@example.net"))
    attributes = {part.strip() for part in cookie.split(";")[1:]}

    assert cookie.startswith("__Host-pingmon=")
    assert attributes == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}


def test_email_may_be_typed_in_any_case(site: Site) -> None:
    """People do not remember how they spelled it."""
    assert site.visitor().sign_in("ADMIN@Example.Net").headers["Location"] == "/"


def test_wrong_password_and_unknown_user_look_the_same(site: Site) -> None:
    """Nobody can find out who has an account."""
    answers = [site.visitor().sign_in(email, "wrong wrong wrong") for email in ("admin@example.net", "no@example.net")]

    for answer in answers:
        assert answer.status_code == 200
        assert WRONG in answer.text
        assert answer.text.count('role="alert"') == 1


def test_signing_out_ends_the_session_and_tells_the_live_pictures(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request is nobody's, and the open grid of that user is closed."""
    closed: list[int] = []
    monkeypatch.setattr(site.application.grid, "_users", {"sid-1": 3, "sid-2": 1})
    monkeypatch.setattr(
        site.application.sockets.server, "disconnect", lambda sid, namespace: closed.append((sid, namespace))
    )
    visitor = site.visitor("admin")
    answer = visitor.request("POST", "/logout")

    assert (answer.status_code, answer.headers["Clear-Site-Data"]) == (302, '"cache"')
    assert visitor.get("/api/v1/grid").status_code == 401
    assert closed == [("sid-1", "/grid")]


def test_signing_out_needs_the_token(site: Site) -> None:
    """A foreign page cannot sign people out."""
    visitor = site.visitor("admin")

    assert visitor.request("POST", "/logout", csrf=False).status_code == 400
    assert visitor.get("/api/v1/grid").status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "\\\\evil.example", "/\\evil.example"])
def test_next_never_leads_off_the_site(site: Site, target: str) -> None:
    """An open redirect would lend our name to a phishing page."""
    visitor = site.visitor()
    page = visitor.get("/login", query_string={"next": target})
    answer = visitor.request("POST", "/login", query_string={"next": target},
                             data={"email": "admin@example.net", "password": PASSWORD})  # fmt: skip

    assert 'action="/login"' in page.text
    led_to = answer.headers.get("Location", "/")
    assert "\\" not in led_to
    assert urljoin(f"{BASE}/login", led_to).startswith(f"{BASE}/")


def test_a_page_asked_for_is_where_sign_in_leads(site: Site) -> None:
    """The address typed before signing in is not lost."""
    visitor = site.visitor()
    login = visitor.get("/agents").headers["Location"]

    assert login == "/login?next=/agents"
    assert visitor.sign_in("viewer@example.net", path=login).headers["Location"] == "/agents"


def test_no_tokens_are_given_out_or_taken(site: Site) -> None:
    """Flask-Security's signed tokens could not be revoked one by one, so there are none."""
    visitor = site.visitor()
    visitor.get("/login")
    asked = visitor.request(
        "POST", "/login?include_auth_token", json={"email": "admin@example.net", "password": PASSWORD}
    )
    taken = site.visitor().get("/api/v1/grid", headers={"Authentication-Token": "WyIxIiwiMiJd"})

    assert asked.status_code == 400
    assert taken.status_code == 401


def test_a_deactivated_user_is_out_at_once(site: Site) -> None:
    """The cookie of somebody who was switched off opens nothing."""
    visitor = site.visitor("viewer")
    with site.application.services.directory.session() as session:
        user = session.scalars(select(User).where(col(User.email) == "viewer@example.net")).one()
        user.active = False
        session.commit()

    assert visitor.get("/api/v1/grid").status_code == 401


# -- the one-time link --


def _welcome(
    visitor: Visitor, path: str, email: str = "first@lab.local", password: str = PASSWORD, again: str | None = None
):
    visitor.get(path)
    fields = {"email": email, "password": password, "again": password if again is None else again}
    return visitor.request("POST", path, data=fields)


def test_the_link_makes_an_admin_once(site: Site) -> None:
    """It signs in, leads to the grid, and is dead afterwards, also for looking at it."""
    path, visitor = site.link(), site.visitor()
    made = _welcome(visitor, path)

    assert (made.status_code, made.headers["Location"]) == (302, "/")
    visitor.get("/")
    assert visitor.api("GET", "/api/v1/passphrases") == {"passphrases": []}
    again = site.visitor().get(path)
    assert again.status_code == 404
    assert "This link does not work any more" in again.text
    assert site.visitor().sign_in("First@lab.local").status_code == 302


def test_the_link_dies_after_an_hour(site: Site) -> None:
    """A link forgotten in a terminal is no open door."""
    path = site.link()
    site.clock.now_ms += 3_599_000
    assert site.visitor().get(path).status_code == 200
    site.clock.now_ms += 2_000
    assert site.visitor().get(path).status_code == 404
    assert _welcome(site.visitor(), path).status_code in (400, 404)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_the_link_works_from_the_server_itself_only(site: Site, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sees the link over somebody's shoulder cannot use it from elsewhere; the link stays unused."""
    caplog.set_level("INFO")
    path = site.link()
    answer = site.visitor(address=address).get(path)

    assert answer.status_code == 403
    assert "/welcome/<token>" in caplog.text
    assert path not in caplog.text  # a live token stays out of the log
    assert "This link works on the server itself only. Open it there, or through an SSH tunnel" in answer.text
    for local in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert site.visitor(address=local).get(path).status_code == 200


def test_a_server_on_one_address_is_met_there(tmp_path: Path) -> None:
    """A server that listens on its LAN address only has no loopback: a browser on the host comes from that address."""
    site = open_site(tmp_path / "data", {"listen": "192.0.2.5"})
    path = site.link()

    assert site.visitor(address="192.0.2.5").get(path).status_code == 200
    assert site.visitor(address="192.0.2.6").get(path).status_code == 403
    site.application.services.close()


@pytest.mark.parametrize(
    ("email", "password", "again", "sentence"),
    [
        ("not an address", PASSWORD, None, "is not an e-mail address"),
        (
            "a@example.net",
            "short",
            None,
            "The password is too short: use 12 characters or more, such as four random words.",
        ),
        ("a@example.net", "x" * 129, None, "The password is too long: use at most 128 characters."),
        (
            "a@example.net",
            "aaaaaaaaaaaaaa",
            None,
            "The password is too easy to guess: use four random words, for example.",
        ),
        ("a@example.net", PASSWORD, PASSWORD + "8", "The two passwords differ. Type the same one twice."),
        ("admin@example.net", PASSWORD, None, "this e-mail has an account already. Sign in instead."),
    ],
)
def test_bad_input_keeps_the_link_and_says_what_to_do(
    site: Site, email: str, password: str, again: str | None, sentence: str
) -> None:
    """A typing mistake does not cost the link."""
    path = site.link()
    answer = _welcome(site.visitor(), path, email, password, again)

    assert answer.status_code == 422
    assert sentence in answer.text
    assert _welcome(site.visitor(), path).status_code == 302


def test_unknown_links_are_dead_links(site: Site) -> None:
    """A guess is answered like a used one."""
    assert "This link does not work any more" in site.visitor().get("/welcome/guess").text


# -- the rules themselves --


def test_addresses_of_closed_networks_are_fine() -> None:
    """Labs have no public domain."""
    assert [clean_email(a) for a in (" Root@lab.local ", "ops@localhost", "Ä@example.net")] == [
        "root@lab.local",
        "ops@localhost",
        "ä@example.net",
    ]
    with pytest.raises(Invalid, match="'nobody' is not an e-mail address"):
        clean_email("nobody")


def test_a_password_may_be_anything_long_enough() -> None:
    """Spaces and any script; no rules about digits. Two ways to type one accented letter are the same password."""
    assert clean_password("vier zufällige wörter") == clean_password("vier zufällige wörter")
    with pytest.raises(Invalid):
        clean_password("password123")


def test_password_hashing_leaves_the_hub_free(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking and making a hash goes through `run_blocking`: on the hub each would stop every agent for 50 ms (S8)."""
    moved: list[str] = []

    def run_blocking(function: Callable[..., object], *args: object, **options: object) -> object:
        moved.append(function.__name__)
        return function(*args, **options)

    monkeypatch.setattr(credentials, "run_blocking", run_blocking)
    site.visitor().sign_in("admin@example.net")
    site.visitor().sign_in("nobody@example.net")
    credentials.hash_password(PASSWORD)

    assert moved == ["verify", "hash", "hash"]
