"""Guards of the transport and of revocation, as in enrolment.py."""

from __future__ import annotations

from .enrolment import Guard

GUARDS: list[Guard] = [
    (
        "pingmon/eventlet_cures.py",
        "REQUEST_BUDGET_S, self.request",
        "REQUEST_BUDGET_S * 9, self.request",
        "tests/abuse/test_patience.py test_04",
    ),
    (
        "pingmon/adapters/lines.py",
        "if self._talkers[sid].since <= due",
        "if False",
        "tests/abuse/test_patience.py test_05 or test_06",
    ),
    ("pingmon/gate.py", "self._by_peer.get(peer, 0) < allowed", "True", "tests/abuse/test_patience.py test_03_two"),
    (
        "pingmon/app.py",
        "cors_allowed_origins=may_come_from(config)",
        'cors_allowed_origins="*"',
        "tests/abuse/test_transport.py test_08",
    ),
    ("pingmon/app.py", "namespaces=[NAMESPACE],", "", "tests/abuse/test_transport.py test_10"),
    (
        "pingmon/adapters/lines.py",
        "if talker.connects > MAX_CONNECTS",
        "if False",
        "tests/abuse/test_transport.py test_10",
    ),
    (
        "pingmon/adapters/packet.py",
        "if data[0] in RESERVED:",
        "if False:",
        "tests/abuse/test_transport.py test_11_spoofed",
    ),
    (
        "pingmon/adapters/agent_socket.py",
        'or answer.get("ok") is False',
        "",
        "tests/abuse/test_transport.py test_12_broken",
    ),
    (
        "pingmon/adapters/lines.py",
        "data[:1] not in CLIENT_PACKETS",
        "False",
        "tests/abuse/test_transport.py test_12_no_engine",
    ),
    (
        "pingmon/adapters/lines.py",
        'if not self._refuse(talker, "E_MALFORMED", str(error)):',
        "if False:",
        "tests/abuse/test_transport.py test_12_no_socket",
    ),
    (
        "pingmon/adapters/packet.py",
        "(BINARY_EVENT, BINARY_ACK) or announced",
        "()",
        "tests/abuse/test_transport.py test_13",
    ),
    ("pingmon/eventlet_cures.py", "self.size > self.max_frame_length or", "", "tests/abuse/test_transport.py test_14"),
    (
        "pingmon/eventlet_cures.py",
        "(not final and len(self.data) >= MAX_PIECES)",
        "False",
        "tests/abuse/test_transport.py test_14",
    ),
    (
        "pingmon/adapters/lines.py",
        "if len(data) > talker.max_bytes",
        "if False",
        "tests/abuse/test_transport.py test_15_a_stranger",
    ),
    ("pingmon/adapters/entrance.py", "environ.pop(", "environ.get(", "tests/abuse/test_transport.py test_16_a"),
    ("pingmon/adapters/entrance.py", '!= "13"', '== "12"', "tests/abuse/test_transport.py test_16_the"),
    ("pingmon/adapters/packet.py", "parse_constant=_refuse_constant,", "", "tests/abuse/test_transport.py test_17"),
    (
        "pingmon/adapters/packet.py",
        "if len(found) != len(pairs):",
        "if False:",
        "tests/abuse/test_transport.py test_17",
    ),
    ("pingmon/adapters/packet.py", "if _ESCAPED.search(text):", "if False:", "tests/abuse/test_transport.py test_17"),
    ("pingmon/adapters/bouncer.py", "if talk.hear(self._now()):", "if True:", "tests/abuse/test_floods.py test_18"),
    (
        "pingmon/adapters/bouncer.py",
        "if talk.hopeless(self._now()):",
        "if False:",
        "tests/abuse/test_floods.py test_18",
    ),
    (
        "pingmon/adapters/lines.py",
        "if not talker.packets.take(self._now()):",
        "if False:",
        "tests/abuse/test_floods.py test_18",
    ),
    ("pingmon/eventlet_cures.py", "if not self.controls.take(now):", "if False:", "tests/abuse/test_floods.py test_18"),
    ("pingmon/adapters/lines.py", "if talker.overfull():", "if False:", "tests/abuse/test_floods.py test_19"),
    ("pingmon/gate.py", "listener.setsockopt(", "listener.getsockopt and (", "tests/abuse/test_floods.py test_19"),
    ("pingmon/services/limits.py", "if found is None or", "if True or", "tests/abuse/test_floods.py test_20_a"),
    (
        "pingmon/adapters/bouncer.py",
        "self._block(network_of(address), BLOCK_S)",
        "pass",
        "tests/abuse/test_floods.py test_20_a",
    ),
    (
        "pingmon/adapters/lines.py",
        "return allowed is None or",
        "return True or",
        "tests/abuse/test_floods.py test_20_few",
    ),
    (
        "pingmon/eventlet_cures.py",
        "except (OSError, ValueError):  # the peer",
        "except KeyError:  # the peer",
        "tests/abuse/test_floods.py test_a_reset",
    ),
    (
        "pingmon/eventlet_cures.py",
        "        if error.errno not in FULL:",
        "        raise error\n        if True:",
        "tests/abuse/test_floods.py test_no_desc",
    ),
    ("pingmon/gate.py", "if self.open >= self.most or time", "if time", "tests/server/test_limits.py whole_is_bounded"),
    (
        "pingmon/adapters/lines.py",
        "            talker.line.cut()\n",
        "            pass\n",
        "tests/abuse/test_revoked.py test_41_the_connection",
    ),
    (
        "pingmon/adapters/lines.py",
        "self._server.start_background_task(self._farewell, talker, why)\n        self._server",
        "self._server",
        "tests/abuse/test_revoked.py test_41_the_connection",
    ),
    (
        "pingmon/services/ingest.py",
        "if view is None or view.state is not State.APPROVED or view.revoked:",
        "if False:",
        "tests/server/test_revocations.py test_41",
    ),
    ("pingmon/services/bundle.py", "registry.replay_revocations()", "[]", "tests/abuse/test_revoked.py test_42"),
]
