"""The JSON API under /api/v1 for what people decide: agents, targets, passphrases. Reads the request, asks one service,
says what came out; who may call what stands in access.py. Must not know: HTML, sockets, the store.
"""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from pingmon.services.approval import Expected
from pingmon.services.errors import Invalid, NotFound
from pingmon.services.probes import check_probe
from pingmon.services.refusals import FEW
from pingmon.services.views import AgentView, seconds
from pingmon_agent.wire.contract import State

from .accounts import Role, current_email, current_role
from .context import services
from .payload import body, fields

MAX_BODY_BYTES: Final = 1 << 20
# What a viewer does not learn about an agent: where it is and how it came in.
DETAILS: Final = (
    "ip_address",
    "observed_ip",
    "previous_ip",
    "version",
    "passphrase_label",
    "passphrase_id",
    "decided_by",
    "not_in_mesh",
    "key_fpr",
    "fingerprint",
    "allowed",
    "observed",
    "duplicate_identity",
)
TARGET: Final[dict[str, type]] = {"name": str, "address": str}
NO_AGENT: Final = "there is no agent {!r}; the list of agents shows ids and hostnames"
PROBE: Final[dict[str, type]] = {"probe": dict}

blueprint = Blueprint("api", __name__)


# -- agents --


def _seen_by_me(view: AgentView, refusals: int | None = None) -> dict[str, Any]:
    """`refusals`: as many of the targets that it refuses; None for all that are known."""
    registry = services().registry
    described: dict[str, Any] = registry.describe(view)
    described |= services().refusals.shown(view.no, registry.snapshot.targets, refusals)
    described["clock_offset_s"] = seconds(services().clocks.offset_ms(view.no))
    if (current_role() or 0) >= Role.OPERATOR:
        return described
    return {name: value for name, value in described.items() if name not in DETAILS}


def visible(view: AgentView) -> bool:
    """Whether whoever asks may know of this agent."""
    return view.state is not State.PENDING or (current_role() or 0) >= Role.OPERATOR


@blueprint.get("/api/v1/agents")
def list_agents() -> ResponseReturnValue:
    """All agents; a viewer does not see those that wait."""
    return jsonify(agents=[_seen_by_me(view, FEW) for view in services().registry.agents() if visible(view)])


@blueprint.get("/api/v1/agents/<ref>")
def show_agent(ref: str) -> ResponseReturnValue:
    """One agent by id or hostname."""
    view = services().registry.agent(ref)
    if not visible(view):
        raise NotFound(NO_AGENT.format(ref))
    return jsonify(_seen_by_me(view))


@blueprint.get("/api/v1/agents/<ref>/evidence")
def evidence_of_agent(ref: str) -> ResponseReturnValue:
    """What an admin looks at before deciding: who else has this name or had this key, and what approving adds."""
    return jsonify(services().registry.evidence(ref))


@blueprint.patch("/api/v1/agents/<ref>")
def change_agent(ref: str) -> ResponseReturnValue:
    """From which addresses and networks it may come, and whether the address the server sees counts."""
    sent = body({}, {"allowed": list, "observed": str})
    if not all(isinstance(entry, str) for entry in sent.get("allowed", [])):
        raise Invalid("allowed must be a list of strings, such as 192.0.2.7 or 192.0.2.0/24")
    if sent.get("observed", "check") not in ("check", "ignore"):
        raise Invalid("observed must be check or ignore")
    ignored = sent["observed"] == "ignore" if "observed" in sent else None
    return jsonify(_seen_by_me(services().registry.set_addresses(ref, current_email(), sent.get("allowed"), ignored)))


@blueprint.post("/api/v1/agents/<ref>/rekey")
def rekey_agent(ref: str) -> ResponseReturnValue:
    """Give it the key of an agent that waits (`with`): id and history stay, the other one goes."""
    sent = body({"with": str}, {"expected_key_fpr": str})
    expected = Expected(sent.get("expected_key_fpr"))
    return jsonify(_seen_by_me(services().registry.rekey(ref, sent["with"], current_email(), expected)))


@blueprint.post("/api/v1/agents/<ref>/approve")
def approve_agent(ref: str) -> ResponseReturnValue:
    """Let it measure; 409 where key or revision are no longer those that somebody looked at."""
    sent = body({}, {"expected_key_fpr": str, "expected_revision": int}) if request.content_length else {}
    expected = Expected(sent.get("expected_key_fpr"), sent.get("expected_revision"))
    return jsonify(_seen_by_me(services().registry.approve(ref, current_email(), expected)))


@blueprint.post("/api/v1/agents/<ref>/reject")
def reject_agent(ref: str) -> ResponseReturnValue:
    """Send it away."""
    return jsonify(_seen_by_me(services().registry.reject(ref, current_email())))


@blueprint.post("/api/v1/agents/<ref>/hold")
def hold_agent(ref: str) -> ResponseReturnValue:
    """Take nothing from it for now."""
    return jsonify(_seen_by_me(services().registry.hold(ref, current_email())))


@blueprint.post("/api/v1/agents/<ref>/release")
def release_agent(ref: str) -> ResponseReturnValue:
    """End a hold; `always`: its address now is one of its own from now on."""
    sent = body({}, {"always": bool}) if request.content_length else {}
    return jsonify(_seen_by_me(services().registry.release(ref, current_email(), always=sent.get("always", False))))


@blueprint.delete("/api/v1/agents/<ref>")
def delete_agent(ref: str) -> ResponseReturnValue:
    """Forget it."""
    services().registry.delete(ref, current_email())
    return "", 204


# -- targets --


def _all_targets() -> ResponseReturnValue:
    return jsonify(targets=[view.as_json() for view in services().registry.targets()])


@blueprint.get("/api/v1/targets")
def list_targets() -> ResponseReturnValue:
    """All targets in column order."""
    return _all_targets()


@blueprint.put("/api/v1/targets")
def put_targets() -> ResponseReturnValue:
    """Make the whole list (agents of the mesh aside) equal to the one sent; the same list again changes nothing."""
    sent = body({"targets": list})["targets"]
    wanted = [fields(item, f"target {i}", TARGET, PROBE) for i, item in enumerate(sent, 1)]
    rows = [(item["name"], item["address"], check_probe(item.get("probe", {}))) for item in wanted]
    services().registry.put_targets(rows, current_email())
    return _all_targets()


@blueprint.post("/api/v1/targets")
def add_target() -> ResponseReturnValue:
    """One more target."""
    sent = body(TARGET, PROBE)
    probe = check_probe(sent.get("probe", {}))
    view = services().registry.add_target(sent["name"], sent["address"], current_email(), probe)
    return jsonify(view.as_json()), 201


@blueprint.patch("/api/v1/targets/<ref>")
def change_target(ref: str) -> ResponseReturnValue:
    """Another name, address or way to probe; id and history stay. `probe` replaces all its settings."""
    sent = body({}, TARGET | PROBE)
    probe = check_probe(sent["probe"]) if "probe" in sent else None
    view = services().registry.change_target(
        ref, current_email(), name=sent.get("name"), address=sent.get("address"), probe=probe
    )
    return jsonify(view.as_json())


@blueprint.delete("/api/v1/targets/<ref>")
def remove_target(ref: str) -> ResponseReturnValue:
    """No longer ping it."""
    services().registry.remove_target(ref, current_email())
    return "", 204


# -- passphrases --


@blueprint.get("/api/v1/passphrases")
def list_passphrases() -> ResponseReturnValue:
    """All passphrases without their secrets, newest first."""
    return jsonify(passphrases=[view.as_json() for view in services().enrolment.passphrases()])


@blueprint.post("/api/v1/passphrases")
def create_passphrase() -> ResponseReturnValue:
    """A new one; its clear text is in this answer and nowhere else."""
    sent = body({"label": str, "legacy": bool, "max_uses": int, "ttl_s": int}, {"networks": list, "legacy_s": int})
    if not all(isinstance(entry, str) for entry in sent.get("networks", [])):
        raise Invalid("networks must be a list of strings, such as 192.0.2.0/24")
    view, clear = services().enrolment.create_passphrase(sent.pop("label"), actor=current_email(), **sent)
    return jsonify(passphrase=view.as_json(), clear=clear), 201


@blueprint.post("/api/v1/passphrases/<passphrase_id>/reject-pending")
def reject_pending(passphrase_id: str) -> ResponseReturnValue:
    """Send away everybody who came with it and waits for approval."""
    gone = services().registry.reject_pending(passphrase_id, current_email())
    return jsonify(agents=[_seen_by_me(view) for view in gone])


@blueprint.delete("/api/v1/passphrases/<passphrase_id>")
def revoke_passphrase(passphrase_id: str) -> ResponseReturnValue:
    """From now on it opens nothing."""
    return jsonify(services().enrolment.revoke_passphrase(passphrase_id, current_email()).as_json())
