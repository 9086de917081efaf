"""What people are told on pages and by the API: a certificate that ends, targets that an agent's host refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pingmon import tls
from pingmon.cli.pki_authority import create_authority, issue_leaf

from .site import Site

REFUSED = {"code": "E_POLICY_MULTICAST", "reason": "it is a multicast address, not one host"}


@pytest.fixture
def ending(site: Site, tmp_path: Path) -> tls.Served:
    """The site's certificate, which ends in five days and a bit."""
    create_authority(tmp_path / "ca", "test CA")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    until, _ = issue_leaf(tmp_path / "ca", "localhost", [], out_cert=certificate, out_key=key)
    served = tls.Served(certificate, key, now=lambda: until.timestamp() - 5.2 * 86_400)
    site.application.certificate = served
    return served


@pytest.mark.parametrize("page", ["/", "/agents", "/targets"])
def test_administrators_see_that_the_certificate_ends(site: Site, ending: tls.Served, page: str) -> None:
    """On every page, and nobody else, who could do nothing about it."""
    seen = {role: site.visitor(role).get(page).text for role in ("viewer", "operator", "admin")}

    assert [role for role, text in seen.items() if 'id="warning"' in text] == ["admin"]
    assert "The certificate of this server ends in 5 days" in seen["admin"]
    assert ending.warning() is not None


def test_a_certificate_that_cannot_be_taken_over_is_named(site: Site, ending: tls.Served, tmp_path: Path) -> None:
    """With its file."""
    (tmp_path / "server.pem").write_text("<b>nonsense</b>")
    ending.ask()
    ending.look()

    text = site.visitor("admin").get("/").text
    assert f"certificate {tmp_path}/server.pem is not a PEM certificate" in text


def test_without_trouble_there_is_no_banner(site: Site) -> None:
    """Neither before the certificate is known."""
    assert 'id="warning"' not in site.visitor("admin").get("/").text


def test_refusals_are_shown_with_their_agent_and_with_the_cell(site: Site) -> None:
    """In words; the list of agents has the first few, the agent itself all."""
    services = site.application.services
    agent = services.registry.approve(site.pending_agent("probe-1"), "test")
    services.registry.put_targets([(f"t{n}", f"192.0.2.{n + 1}") for n in range(7)], "test")
    ids = [target.id for target in services.registry.targets() if target.agent_id is None]
    services.refusals.acknowledged(agent.no, {"ok": True, "refused": [[i, "E_POLICY_MULTICAST"] for i in ids]})
    viewer = site.visitor("viewer")

    [listed] = viewer.api("GET", "/api/v1/agents")["agents"]
    shown = viewer.api("GET", "/api/v1/agents/probe-1")
    cell = viewer.api("GET", "/api/v1/completeness/probe-1/t3")
    assert (listed["refused_count"], len(listed["refused"])) == (7, 5)
    assert [row["target"] for row in shown["refused"]] == [f"t{n}" for n in range(7)]
    assert shown["refused"][0] == {"target_id": ids[0], "target": "t0", **REFUSED}
    assert cell["refused"] == REFUSED
    services.refusals.acknowledged(agent.no, {"ok": True, "refused": []})
    assert viewer.api("GET", "/api/v1/completeness/probe-1/t3")["refused"] is None
    assert viewer.api("GET", "/api/v1/agents/probe-1")["refused_count"] == 0
