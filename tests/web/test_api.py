"""The API does what it says, seen through the services it acts on."""

from __future__ import annotations

from array import array

from pingmon.store.ledger import Entry, LedgerFile
from pingmon.store.rounds import StoredRound

from .site import Site


def test_the_way_of_an_agent(site: Site) -> None:
    """pending -> approved -> hold -> approved -> blacklisted -> gone, each step visible and in the audit log's name."""
    admin = site.visitor("admin")
    uid = site.pending_agent("probe-1")
    states = [admin.api("GET", f"/api/v1/agents/{uid}")["state"]]
    for verb in ("approve", "hold", "release", "reject"):
        states.append(admin.api("POST", f"/api/v1/agents/{uid}/{verb}", {})["state"])
    decided = admin.api("GET", "/api/v1/agents/probe-1")
    admin.api("DELETE", f"/api/v1/agents/{uid}", status=204)

    assert states == ["pending", "approved", "hold", "approved", "blacklisted"]
    assert decided["decided_by"] == "admin@example.net"
    assert admin.api("GET", "/api/v1/agents") == {"agents": []}


def test_a_step_that_does_not_fit_is_409(site: Site) -> None:
    """The state machine's own words reach the user."""
    admin = site.visitor("admin")
    uid = site.pending_agent("probe-1")
    refused = admin.api("POST", f"/api/v1/agents/{uid}/release", {}, 409)

    assert refused["message"] == "probe-1 is pending; only an agent on hold can be released"


def test_approving_what_has_changed_is_409(site: Site) -> None:
    """Key and revision that somebody looked at go along with the click; if they are others by now, nothing happens."""
    admin = site.visitor("admin")
    uid = site.pending_agent("probe-1")
    seen = admin.api("GET", f"/api/v1/agents/{uid}")
    path = f"/api/v1/agents/{uid}/approve"
    revision = admin.api("POST", path, {"expected_revision": seen["revision"] + 1}, 409)
    key = admin.api("POST", path, {"expected_key_fpr": "another"}, 409)
    still = admin.api("GET", f"/api/v1/agents/{uid}")["state"]
    done = admin.api("POST", path, {"expected_revision": seen["revision"]})

    assert "has changed since you looked" in revision["message"]
    assert "shows another key by now" in key["message"]
    assert (still, done["state"]) == ("pending", "approved")


def test_a_release_for_good_keeps_the_address(site: Site) -> None:
    """`always` adds the address to the agent's own; without it, it may pass once."""
    admin, secret = site.visitor("admin"), site.passphrase()
    uid = site.pending_agent("probe-1", passphrase=secret)
    admin.api("POST", f"/api/v1/agents/{uid}/approve", {})
    allowed = []
    for address, always in (("192.0.2.18", False), ("192.0.2.19", True)):
        site.pending_agent("probe-1", address, secret)
        assert admin.api("GET", f"/api/v1/agents/{uid}")["hold_reason"] == "ip_changed"
        allowed.append(admin.api("POST", f"/api/v1/agents/{uid}/release", {"always": always})["allowed"])

    assert allowed == [["192.0.2.17"], ["192.0.2.17", "192.0.2.19"]]


def test_putting_the_same_list_again_changes_nothing(site: Site) -> None:
    """PUT is idempotent: no new revision, so no agent is bothered."""
    operator = site.visitor("operator")
    wanted = {"targets": [{"name": "b", "address": "192.0.2.2"}, {"name": "a", "address": "2001:db8::1"}]}
    first = operator.api("PUT", "/api/v1/targets", wanted)
    before = site.application.services.registry.snapshot.revision
    second = operator.api("PUT", "/api/v1/targets", wanted)

    assert [t["name"] for t in first["targets"]] == ["b", "a"]
    assert second == first
    assert site.application.services.registry.snapshot.revision == before


def test_a_target_keeps_its_id_when_it_is_renamed(site: Site) -> None:
    """History hangs on the id."""
    operator = site.visitor("operator")
    made = operator.api("POST", "/api/v1/targets", {"name": "old", "address": "192.0.2.1"}, 201)
    changed = operator.api("PATCH", f"/api/v1/targets/{made['id']}", {"name": "new", "address": "192.0.2.8"})
    slower = operator.api("PATCH", f"/api/v1/targets/{made['id']}", {"probe": {"count": 3}})

    assert changed == {"id": made["id"], "name": "new", "address": "192.0.2.8", "agent_id": None, "probe": {}}
    assert slower == {**changed, "probe": {"count": 3}}
    refused = operator.api("PATCH", f"/api/v1/targets/{made['id']}", {"probe": {"count": 99}}, 422)
    assert refused["message"] == "count must lie between 1 and 20"
    operator.api("DELETE", f"/api/v1/targets/{made['id']}", status=204)
    assert operator.api("GET", "/api/v1/targets") == {"targets": []}


def test_a_passphrase_is_shown_once(site: Site) -> None:
    """The clear text is in the answer that makes it, opens the door, and is nowhere afterwards."""
    admin = site.visitor("admin")
    asked = {"label": "site B", "legacy": True, "max_uses": 2, "ttl_s": 3600}
    made = admin.api("POST", "/api/v1/passphrases", asked, 201)
    site.pending_agent("probe-1", passphrase=made["clear"])
    listed = admin.request("GET", "/api/v1/passphrases")
    (entry,) = listed.get_json()["passphrases"]

    assert made["clear"] not in listed.text
    assert (entry["label"], entry["uses"], entry["max_uses"], entry["created_by"]) == (
        "site B",
        1,
        2,
        "admin@example.net",
    )
    revoked = admin.api("DELETE", f"/api/v1/passphrases/{entry['id']}")
    assert revoked["state"] == "revoked"


def test_monitoring_and_grid_show_exactly_what_was_reported(site: Site) -> None:
    """One round in, its values out, under both names of agent and target."""
    services, viewer = site.application.services, site.visitor("viewer")
    uid = site.pending_agent("probe-1")
    services.registry.approve(uid, "test")
    one = services.registry.add_target("one", "192.0.2.1", "test")
    two = services.registry.add_target("two", "192.0.2.2", "test")
    agent = services.registry.agent(uid)
    columns = services.registry.snapshot.sets[agent.no]
    values = {one.id: 12_345, two.id: -1}
    stored = StoredRound(
        agent_no=agent.no, epoch="e", seq=1, started_ms=site.clock.now_ms - 1500, revision=columns.revision, flags=0,
        received_ms=site.clock.now_ms, samples=array("i", [values[i] for i in columns.target_ids]),
    )  # fmt: skip
    services.recent.add(stored, columns.target_ids)
    services.grid.add(stored, columns.target_ids)
    pair = viewer.api("GET", f"/monitoring/{uid}/{one.id}")
    grid = viewer.api("GET", "/api/v1/grid")

    at = (site.clock.now_ms - 1500) / 1000
    assert pair == {
        "agent": "probe-1",
        "target": "one",
        "interval_s": 5.0,
        "samples": [{"timestamp": at, "rtt_ms": 12.345, "status": "ok"}],
    }
    assert viewer.api("GET", "/monitoring/probe-1/192.0.2.1") == pair
    assert viewer.api("GET", "/monitoring/probe-1/two")["samples"] == [
        {"timestamp": at, "rtt_ms": None, "status": "timeout"}
    ]
    assert (grid["rtt_ms"], grid["state"]) == ([[12.345, None]], [["ok", "lossy"]])


def test_the_account_of_an_agent_and_of_a_pair(site: Site) -> None:
    """Totals, hours and gaps with their reason in words, for the time asked for; nonsense is refused."""
    admin, services = site.visitor("admin"), site.application.services
    uid = site.pending_agent("probe-1")
    admin.api("POST", f"/api/v1/agents/{uid}/approve", {})
    admin.api("POST", "/api/v1/targets", {"name": "gw", "address": "192.0.2.9"}, 201)
    start = site.clock.now_ms
    site.clock.now_ms += 7_200_000
    slots = [(start // 5_000 + i, i % 2 == 0) for i in range(1441) if not 300 <= i < 310]
    entry = Entry(5_000, up=(start, site.clock.now_ms), slots={services.registry.agent(uid).no: slots})
    services.rounds.write([], {}, start, LedgerFile(services.config.data_dir / "samples.db").entry(entry))

    body = site.visitor("viewer").api("GET", f"/api/v1/agents/probe-1/completeness?from={start / 1000}")
    pair = admin.api("GET", f"/api/v1/completeness/probe-1/gw?from={start / 1000 + 1490}&to={start / 1000 + 1530}")
    refused = admin.api("GET", "/api/v1/agents/probe-1/completeness?from=yesterday", status=422)

    assert (body["agent"], body["expected"], body["received"], body["missing"]) == ("probe-1", 1437, 1427, 10)
    assert [hour["expected"] for hour in body["hours"]] == [640, 720, 77]
    assert body["gaps"] == [
        {
            "from": start / 1000 + 1500,
            "to": start / 1000 + 1550,
            "rounds": 10,
            "reason": "agent_down",
            "text": "nothing was heard from the agent",
        }
    ]
    assert (pair["target"], pair["expected"], pair["missing"], pair["reasons"]["agent_down"]) == ("gw", 8, 6, 6)
    assert refused["message"].startswith("`from` is no time: 'yesterday'")
    hidden = site.pending_agent("probe-2")
    site.visitor("viewer").api("GET", f"/api/v1/agents/{hidden}/completeness", status=404)


def test_the_evidence_before_an_approval(site: Site) -> None:
    """Who else has this name, what approving adds, and the key that people compare."""
    registry = site.application.services.registry
    registry.put_targets([("a", "192.0.2.10"), ("b", "192.0.2.11")], "test")
    registry.approve(site.keyed_agent("probe-1"), "test")
    waiting = site.keyed_agent("probe-1", "192.0.2.18")
    told = site.visitor("admin").api("GET", f"/api/v1/agents/{waiting}/evidence")

    assert [(a["hostname"], a["state"]) for a in told["same_name"]] == [("probe-1", "approved")]
    assert told["fingerprint"].replace(" ", "") == told["key_fpr"][:16]
    assert (told["ip_address"], told["same_key"]) == ("192.0.2.18", [])
    assert told["adds"] == {"series": 4, "pings_per_s": 0.8}  # a, b, the other one, and the other one's ping of it


def test_rekeying_keeps_the_agent_and_asks_for_the_key_that_was_seen(site: Site) -> None:
    """A host that was set up anew goes on under its old id; another key than the one looked at is refused."""
    admin, registry = site.visitor("admin"), site.application.services.registry
    old = site.keyed_agent("probe-1")
    registry.approve(old, "test")
    new = site.keyed_agent("probe-1")
    seen = registry.agent(new).key_fpr
    refused = admin.api("POST", f"/api/v1/agents/{old}/rekey", {"with": new, "expected_key_fpr": "x"}, 409)
    done = admin.api("POST", f"/api/v1/agents/{old}/rekey", {"with": new, "expected_key_fpr": seen})

    assert "shows another key by now" in refused["message"]
    assert (done["id"], done["key_fpr"], done["state"]) == (old, seen, "approved")
    assert [a["id"] for a in admin.api("GET", "/api/v1/agents")["agents"]] == [old]


def test_a_key_is_given_only_to_the_agent_of_its_own_name(site: Site) -> None:
    """A stranger who waits gets nobody else's id and history."""
    admin, registry = site.visitor("admin"), site.application.services.registry
    old, stranger = site.keyed_agent("probe-1"), site.keyed_agent("probe-2", "192.0.2.18")
    before = registry.approve(old, "test").key_fpr
    refused = admin.api("POST", f"/api/v1/agents/{old}/rekey", {"with": stranger}, 409)

    assert "is called probe-2, not probe-1" in refused["message"]
    assert registry.agent(old).key_fpr == before


def test_the_addresses_of_an_agent_are_set_and_checked(site: Site) -> None:
    """Networks are taken as they are written; nonsense gets a sentence and changes nothing."""
    admin = site.visitor("admin")
    uid = site.keyed_agent("probe-1")
    done = admin.api("PATCH", f"/api/v1/agents/{uid}", {"allowed": ["192.0.2.0/24"], "observed": "ignore"})
    for wrong in ({"allowed": ["nowhere"]}, {"allowed": [7]}, {"observed": "sometimes"}):
        admin.api("PATCH", f"/api/v1/agents/{uid}", wrong, 422)

    assert (done["allowed"], done["observed"]) == (["192.0.2.0/24"], "ignore")
    assert admin.api("GET", f"/api/v1/agents/{uid}")["allowed"] == ["192.0.2.0/24"]


def test_all_who_came_with_a_passphrase_are_sent_away(site: Site) -> None:
    """Those who wait, nobody else."""
    admin, services = site.visitor("admin"), site.application.services
    clear = site.passphrase("leaked")
    waiting, working = (site.pending_agent(name, passphrase=clear) for name in ("stranger", "ours"))
    services.registry.approve(working, "test")
    other = site.keyed_agent("other")
    leaked = next(p.id for p in services.enrolment.passphrases() if p.label == "leaked")
    gone = admin.api("POST", f"/api/v1/passphrases/{leaked}/reject-pending", {})["agents"]

    states = {a["id"]: a["state"] for a in admin.api("GET", "/api/v1/agents")["agents"]}
    assert [a["id"] for a in gone] == [waiting]
    assert states == {waiting: "blacklisted", working: "approved", other: "pending"}
