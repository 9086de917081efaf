"""Who may do what: every route, every role, against a table written out by hand."""

from __future__ import annotations

import pytest

from pingmon.adapters.web.access import OURS, PERMISSIONS

from .site import ROLES, Site

pytestmark = pytest.mark.slow

EVERYBODY = ("viewer", "operator", "admin")
EDITORS = ("operator", "admin")
ADMIN = ("admin",)
A = "/api/v1/agents/{agent}"
# endpoint -> (method, path, who may)
TABLE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "web.grid": ("GET", "/", EVERYBODY),
    "web.agents": ("GET", "/agents", EVERYBODY),
    "web.targets": ("GET", "/targets", EVERYBODY),
    "web.passphrases": ("GET", "/passphrases", ADMIN),
    "measured.pair": ("GET", "/monitoring/{agent}/{target}", EVERYBODY),
    "measured.grid": ("GET", "/api/v1/grid", EVERYBODY),
    "measured.history_of_pair": ("GET", "/api/v1/history/{agent}/{target}", EVERYBODY),
    "measured.history_of_many": ("GET", "/api/v1/history?agent={agent}", EVERYBODY),
    "api.list_agents": ("GET", "/api/v1/agents", EVERYBODY),
    "api.show_agent": ("GET", "/api/v1/agents/{approved}", EVERYBODY),
    "measured.agent_completeness": ("GET", "/api/v1/agents/{approved}/completeness", EVERYBODY),
    "measured.pair_completeness": ("GET", "/api/v1/completeness/{approved}/{target}", EVERYBODY),
    "api.evidence_of_agent": ("GET", f"{A}/evidence", ADMIN),
    "api.change_agent": ("PATCH", "/api/v1/agents/{approved}", ADMIN),
    "api.rekey_agent": ("POST", "/api/v1/agents/{keyed}/rekey", ADMIN),
    "api.approve_agent": ("POST", f"{A}/approve", ADMIN),
    "api.reject_agent": ("POST", f"{A}/reject", ADMIN),
    "api.hold_agent": ("POST", "/api/v1/agents/{approved}/hold", ADMIN),
    "api.release_agent": ("POST", "/api/v1/agents/{held}/release", EDITORS),
    "api.delete_agent": ("DELETE", A, ADMIN),
    "api.list_targets": ("GET", "/api/v1/targets", EVERYBODY),
    "api.put_targets": ("PUT", "/api/v1/targets", EDITORS),
    "api.add_target": ("POST", "/api/v1/targets", EDITORS),
    "api.change_target": ("PATCH", "/api/v1/targets/{target}", EDITORS),
    "api.remove_target": ("DELETE", "/api/v1/targets/{target}", EDITORS),
    "api.list_passphrases": ("GET", "/api/v1/passphrases", ADMIN),
    "api.create_passphrase": ("POST", "/api/v1/passphrases", ADMIN),
    "api.reject_pending": ("POST", "/api/v1/passphrases/{passphrase}/reject-pending", ADMIN),
    "api.revoke_passphrase": ("DELETE", "/api/v1/passphrases/{passphrase}", ADMIN),
}
BODIES: dict[str, object] = {
    "api.change_agent": {"allowed": ["192.0.2.0/24"]},
    "api.put_targets": {"targets": [{"name": "one", "address": "192.0.2.1"}]},
    "api.add_target": {"name": "two", "address": "192.0.2.2"},
    "api.change_target": {"name": "renamed"},
    "api.create_passphrase": {"label": "x", "legacy": True, "max_uses": 1, "ttl_s": 3600},
}
OPEN = {"web.static", "security.login", "security.logout", "web.welcome"}


def _fill(site: Site) -> dict[str, str]:
    """One of each thing the paths name."""
    registry = site.application.services.registry
    names = {"agent": site.pending_agent("waiting"), "approved": site.pending_agent("working")}
    names["held"] = site.pending_agent("stopped")
    for ref in ("approved", "held"):
        registry.approve(names[ref], "test")
    registry.hold(names["held"], "test")
    names["keyed"] = site.keyed_agent("moved")
    registry.approve(names["keyed"], "test")
    names["rekeyed"] = site.keyed_agent("moved")
    names["target"] = str(registry.add_target("somewhere", "192.0.2.9", "test").id)
    names["passphrase"] = site.application.services.enrolment.passphrases()[0].id
    return names


def _body(endpoint: str, names: dict[str, str]) -> object:
    body = BODIES.get(endpoint)
    return {"with": names["rekeyed"]} if endpoint == "api.rekey_agent" else body


def test_every_route_of_the_web_has_a_line_in_both_tables(site: Site) -> None:
    """A new route without a decision about who may use it fails here, and answers nobody in real life."""
    routes = {rule.endpoint for rule in site.application.flask.url_map.iter_rules() if rule.endpoint.startswith(OURS)}

    assert routes - PERMISSIONS.keys() == {"security.verify"}  # Flask-Security's own, refused below
    assert PERMISSIONS.keys() - OPEN == TABLE.keys()


def test_a_route_without_a_line_answers_nobody(site: Site) -> None:
    """Flask-Security registers /verify, which we do not want: it is not there, not even for an admin."""
    assert site.visitor("admin").get("/verify").status_code == 404


@pytest.mark.parametrize("endpoint", TABLE)
def test_each_role_gets_exactly_what_the_table_says(site: Site, endpoint: str) -> None:
    """Allowed roles get through, others get 403 with a sentence, and nobody's change happens."""
    method, path, allowed = TABLE[endpoint]
    names = _fill(site)
    visitors = {role: site.visitor(role) for role in ROLES}
    # those who may not come first: what they tried must still be there for those who may
    for role in sorted(ROLES, key=lambda r: r in allowed):
        if role in allowed and role != allowed[0]:
            continue
        answer = visitors[role].request(method, path.format(**names), json=_body(endpoint, names))
        if role in allowed:
            assert answer.status_code in (200, 201, 204), (role, answer.text)
        else:
            assert answer.status_code == 403, (role, answer.text)
            assert "Ask an admin." in answer.text


@pytest.mark.parametrize("endpoint", TABLE)
def test_without_sign_in_nothing_but_the_login_page_is_open(site: Site, endpoint: str) -> None:
    """The API says 401, a page leads to the login page."""
    method, path, _ = TABLE[endpoint]
    names = _fill(site)
    answer = site.visitor().request(method, path.format(**names), json=_body(endpoint, names))

    if endpoint.startswith("web."):
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (302, "/login")
    else:
        assert (answer.status_code, answer.get_json()["code"]) == (401, "signed_out")


def test_a_user_without_a_role_gets_nothing(site: Site) -> None:
    """Being known is not enough."""
    site.add_user("nobody@example.net", ())
    visitor = site.visitor()
    visitor.sign_in("nobody@example.net")

    assert visitor.get("/api/v1/grid").status_code == 401


def test_a_viewer_does_not_learn_where_agents_are_nor_who_waits(site: Site) -> None:
    """Addresses, versions and passphrases are for operators; so is the list of those who wait."""
    names = _fill(site)
    seen = site.visitor("viewer").api("GET", "/api/v1/agents")["agents"]
    full = site.visitor("operator").api("GET", "/api/v1/agents")["agents"]

    assert {a["hostname"] for a in seen} == {"working", "stopped", "moved"}
    assert {a["hostname"] for a in full} == {"working", "stopped", "waiting", "moved"}
    assert (
        not {"ip_address", "observed_ip", "previous_ip", "version", "passphrase_label", "passphrase_id", "key_fpr"}
        & seen[0].keys()
    )
    assert full[0]["ip_address"] == "192.0.2.17"
    assert site.visitor("viewer").get(f"/api/v1/agents/{names['agent']}").status_code == 404


def test_a_name_that_is_not_ours_is_refused(site: Site) -> None:
    """DNS rebinding: a foreign name that points at us gets a sentence, an address or localhost gets in."""
    visitor = site.visitor()
    foreign = visitor.get("/login", base_url="https://evil.example")

    assert foreign.status_code == 421
    assert "Set server.public_url to the address people use" in foreign.text
    for name in ("127.0.0.1:8443", "localhost:8443", "[::1]:8443", "192.0.2.5"):
        assert visitor.get("/login", base_url=f"https://{name}").status_code == 200
