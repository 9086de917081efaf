"""What is refused before it reaches a service: forged and malformed requests, each with its exact sentence."""

from __future__ import annotations

import pytest

from .site import Site, Visitor

pytestmark = pytest.mark.slow

TARGETS = "/api/v1/targets"
PASSPHRASES = "/api/v1/passphrases"
GOOD = {"name": "one", "address": "192.0.2.1"}
CSRF = "The form is out of date, or the X-XSRF-Token header is missing. Reload the page and try again."


def _targets(visitor: Visitor) -> list[str]:
    return [target["name"] for target in visitor.api("GET", TARGETS)["targets"]]


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("POST", TARGETS, {"json": GOOD, "csrf": False}),
        ("POST", TARGETS, {"data": '{"name": "one"}', "content_type": "text/plain", "csrf": False}),
        ("PUT", TARGETS, {"json": {"targets": []}, "csrf": False}),
        ("DELETE", f"{TARGETS}/kept", {"csrf": False}),
        ("POST", TARGETS, {"json": GOOD, "headers": {"X-XSRF-Token": "forged"}}),
    ],
)
def test_without_the_token_nothing_changes(site: Site, method: str, path: str, options: dict[str, object]) -> None:
    """A foreign page can send the cookie, but not the token."""
    admin = site.visitor("admin")
    admin.api("POST", TARGETS, {"name": "kept", "address": "192.0.2.7"}, 201)
    answer = admin.request(method, path, **options)

    assert (answer.status_code, answer.get_json()["message"]) == (400, CSRF)
    assert _targets(admin) == ["kept"]


def test_a_request_from_another_site_is_refused_even_with_a_token(site: Site) -> None:
    """Browsers say where a request comes from; we listen."""
    admin = site.visitor("admin")
    answer = admin.request("POST", TARGETS, json=GOOD, headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 403
    assert answer.get_json()["message"] == "This request came from another web site. Open pingmon itself and try again."
    assert _targets(admin) == []


def _asked(**changes: object) -> dict[str, object]:
    return {"label": "x", "legacy": True, "max_uses": 1, "ttl_s": 60, **changes}


def _at(address: object, name: str = "x") -> dict[str, object]:
    return {"name": name, "address": address}


NO_ADDRESS = "'no address!' is no address; give an IPv4 or IPv6 address or a host name, such as 192.0.2.1"
NO_LABEL = "a passphrase needs a label of 1 to 80 printable characters, such as the site it is for"
UNKNOWN = "the body has a field 'port' that is not known; it may have name, address, probe"


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("POST", TARGETS, [], "the body must be an object with the fields name, address, probe"),
        ("POST", TARGETS, {"name": "x"}, "the body lacks the field 'address'; add it"),
        ("POST", TARGETS, {**GOOD, "port": 7}, UNKNOWN),
        ("POST", TARGETS, _at(7), "the body: address must be a string"),
        ("POST", TARGETS, _at("no address!"), NO_ADDRESS),
        ("POST", TARGETS, _at("224.0.0.1"), "'224.0.0.1' is not the address of one host; give a unicast address"),
        ("POST", TARGETS, _at("::1", "a\nb"), "'a\\nb' cannot be a target's name; use 1 to 100 printable characters"),
        ("PUT", TARGETS, {"targets": [GOOD, {"name": "x"}]}, "target 2 lacks the field 'address'; add it"),
        ("PUT", TARGETS, {"targets": [GOOD, GOOD]}, "the list names 'one' twice; each target needs a name of its own"),
        ("PUT", TARGETS, {"targets": {}}, "the body: targets must be a list"),
        ("POST", PASSPHRASES, _asked(legacy=1), "the body: legacy must be true or false"),
        ("POST", PASSPHRASES, _asked(max_uses=True), "the body: max_uses must be a whole number"),
        ("POST", PASSPHRASES, _asked(max_uses=0), "uses = 0 is wrong: it must lie between 1 and 100000"),
        ("POST", PASSPHRASES, _asked(label=" "), NO_LABEL),
    ],
)
def test_wrong_fields_are_named(site: Site, method: str, path: str, body: object, sentence: str) -> None:
    """422 with the field, what is wrong with it and what is allowed; nothing is kept."""
    admin = site.visitor("admin")
    answer = admin.request(method, path, json=body)

    assert (answer.status_code, answer.get_json()["message"]) == (422, sentence)
    assert answer.get_json()["code"] == "invalid"
    assert len(answer.get_json()["ref"]) == 8
    assert _targets(admin) == []
    assert admin.api("GET", PASSPHRASES) == {"passphrases": []}


def test_a_body_that_is_no_json_is_refused(site: Site) -> None:
    """Broken JSON is 400, another type 415, too much 413; each with a sentence."""
    admin = site.visitor("admin")
    broken = admin.request("POST", TARGETS, data="{", content_type="application/json")
    plain = admin.request("POST", TARGETS, data="{}", content_type="text/plain")
    huge = admin.request("POST", TARGETS, data="[" + "0," * 600_000 + "0]", content_type="application/json")

    assert (broken.status_code, plain.status_code, huge.status_code) == (400, 415, 413)
    assert plain.get_json()["code"] == "not_json"
    assert huge.get_json()["message"] == "The request is too large. Send at most 1 MiB."


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/api/v1/agents/ghost", "there is no agent 'ghost'"),
        ("POST", "/api/v1/agents/ghost/approve", "there is no agent 'ghost'"),
        ("DELETE", f"{TARGETS}/99", "there is no target '99'"),
        ("DELETE", f"{PASSPHRASES}/nope", "there is no passphrase 'nope'"),
        ("GET", "/monitoring/ghost/1", "there is no agent 'ghost'"),
        ("GET", "/api/v1/nothing", "There is nothing at this address."),
    ],
)
def test_what_is_not_there_is_404_with_a_sentence(site: Site, method: str, path: str, sentence: str) -> None:
    """Refusals of the services keep their words."""
    answer = site.visitor("admin").request(method, path)

    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert answer.get_json()["message"].startswith(sentence)


def test_a_wrong_method_says_so(site: Site) -> None:
    """405 in the same form as everything else."""
    assert site.visitor("admin").request("PUT", "/api/v1/agents").get_json()["code"] == "method_not_allowed"


def test_a_failure_inside_shows_a_reference_and_nothing_else(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause goes to the log under the same reference."""
    admin = site.visitor("admin")

    def broken() -> None:
        raise RuntimeError("secret path /var/lib/x")

    monkeypatch.setattr(site.application.services.registry, "targets", broken)
    answer = admin.request("GET", TARGETS)
    page = admin.get("/")

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.get_json()["ref"] in caplog.text
    assert "secret path" in caplog.text
    assert page.status_code == 200
